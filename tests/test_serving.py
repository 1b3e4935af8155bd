"""Top-k lists, vectors and new items from a trained workdir."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import pad_jax
from pad_jax import serving
from pad_jax.data import READERS
from pad_jax.data.batches import DeviceData
from pad_jax.errors import UserError
from pad_jax.models.scorer import TABLES, vectors_of
from pad_jax.pipeline import Run
from pad_jax.report.results import read_ranks
from pad_jax.run import METHODS, run
from tests.conftest import ROOT, write_table

pytestmark = pytest.mark.xdist_group("serving")  # its tests share trainings
EPOCHS = {"pretrain.epochs": 1, "align.epochs": 1, "finetune.epochs": 1}


@pytest.fixture
def world(dataset, text, tmp_path, monkeypatch):
    """The tiny dataset under the name `demo`, with a text table, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(READERS, "demo", lambda _: dataset)
    write_table(tmp_path / "text.safetensors", text[1:], dataset, {"encoder": "random"})
    return {"text.table": str(tmp_path / "text.safetensors"), **EPOCHS}


@pytest.fixture(scope="module")
def trainings():
    """Workdirs that a test of this module has trained, by what they are of."""
    return {}


@pytest.fixture
def train(world, make_config, tmp_path, tmp_path_factory, trainings):
    """A configuration and a workdir of its own with the finished run; the same run is made once."""

    def trained(method="pad", backbone="sasrec", gate="bucket"):
        fields = {"method": method, "backbone": backbone, "gate.kind": gate}
        config, name = make_config("best", **world | fields), (method, backbone, gate)
        if name not in trainings:
            trainings[name] = tmp_path_factory.mktemp("trained") / "w"
            run(config, trainings[name])
        workdir = tmp_path / f"w{len(list(tmp_path.iterdir()))}"
        shutil.copytree(trainings[name], workdir)
        return config, workdir

    return trained


@pytest.fixture
def trained(train):
    return train()


def histories(dataset, drop: int = 0) -> list[list[str]]:
    parts = np.split(dataset.events, dataset.starts[1:-1])
    return [[dataset.item_ids[i - 1] for i in part[: len(part) - drop]] for part in parts]


@pytest.mark.parametrize(
    ("method", "backbone"), [("pad", "sasrec"), ("sasrec", "gru4rec"), ("disco", "sasrec"), ("make", "caser")]
)
def test_a_target_is_in_the_list_when_its_rank_says_so(train, dataset, method, backbone):
    config, workdir = train(method=method, backbone=backbone)
    model = pad_jax.load(workdir)
    found = model.recommend(histories(dataset, 1), k=10)
    targets = [h[-1] for h in histories(dataset)]
    hit = np.array([target in row for target, row in zip(targets, found.items, strict=True)])
    ranks = read_ranks(workdir)[f"test/{METHODS[method](config).phases[-1].name}"]
    np.testing.assert_array_equal(hit, ranks <= 10)
    assert 0 < hit.sum() < len(hit)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for row, history in zip(found.items, histories(dataset, 1), strict=True):
        assert not set(row) & set(history)
        assert len(set(row)) == 10
    assert set(found.experts.reshape(-1)) <= set(model.scorer.experts)


def test_an_exact_index_over_the_vectors_gives_the_same_lists(trained, dataset, tmp_path):
    model = pad_jax.load(trained[1])
    known = histories(dataset)
    users, items = model.user_vectors(known), model.item_vectors()
    assert repr(model) == "Recommender(pad of demo: 30 items, experts ('id', 'aligned', 'text'))"
    assert users.shape == (37, 3 * 16)
    assert items.shape == (30, 3 * 16)
    scores = users.astype(np.float64) @ items.T.astype(np.float64)
    found = model.recommend(known, k=30, exclude_history=False)
    order = np.argsort(-scores, axis=1, kind="stable")
    np.testing.assert_array_equal(found.items, np.array(model.item_ids, object)[order])
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, axis=1), rtol=1e-4, atol=1e-5)
    assert found.titles[0, 0] == model.titles[order[0, 0]]
    parts = (users[:, None] * items[None]).reshape(37, 30, 3, 16).sum(axis=3)
    expected = np.array(model.scorer.experts, object)[parts.argmax(axis=2)]
    np.testing.assert_array_equal(found.experts, np.take_along_axis(expected, order, axis=1))
    model.save_vectors(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "v.safetensors")["items"], items)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 37])
def test_lists_do_not_depend_on_the_batch(trained, dataset, count):
    model = pad_jax.load(trained[1])
    whole = model.recommend(histories(dataset), k=7)
    part = model.recommend(histories(dataset)[:count], k=7)
    np.testing.assert_array_equal(part.items, whole.items[:count])
    np.testing.assert_allclose(part.scores, whole.scores[:count], atol=1e-5)
    assert model.recommend([], k=7).items.shape[0] == 0


@pytest.mark.parametrize("count", [1, 3, 4, 8, 9])
def test_all_items_but_the_history_are_candidates(trained, monkeypatch, count):
    monkeypatch.setattr(serving, "_MET", 1)
    model = pad_jax.load(trained[1])
    found = model.recommend([model.item_ids[:count]], k=30 - count)
    assert sorted(found.items[0]) == sorted(model.item_ids[count:])


def test_where_candidates_run_out(trained, dataset):
    model = pad_jax.load(trained[1])
    long = list(dataset.item_ids[:25])
    found = model.recommend([long, long[:1]], k=29)
    assert set(found.items[0]) == {*dataset.item_ids[25:], ""}
    assert (found.items[0] == "").sum() == 24
    assert np.isneginf(found.scores[0, 5:]).all()
    assert "" not in found.items[1]


def test_what_cannot_be_recommended_is_one_line(trained, dataset):
    model = pad_jax.load(trained[1])
    for k in (0, 31):
        with pytest.raises(UserError, match="k must be from 1 to the number of items, 30"):
            model.recommend([["i1"]], k=k)
    with pytest.raises(UserError, match="history 1 names no item that the model knows"):
        model.recommend([["i1"], ["strange"]])
    known = model.recommend([["i1", "strange", "i2"]]).items
    np.testing.assert_array_equal(known, model.recommend([["i1", "i2"]]).items)


@pytest.mark.parametrize("run_of", [("pad",), ("pad", "sasrec", "bucket_emb"), ("disco",), ("make", "caser")])
def test_new_items_are_scored_without_ids(train, dataset, text, run_of):
    """Against the scorer with a row of zeros in every ID table, the ID expert's gate at 0, and the coldest bucket."""
    config, workdir = train(*run_of)
    random = np.random.default_rng(5)
    new = random.normal(size=(3, text.shape[1])).astype(np.float32)
    model = pad_jax.load(workdir)
    more = model.with_items(["n1", "n2", "n3"], ["New", "Newer", "Newest"], new)
    job = Run(config, workdir, METHODS[config.method](config), str)
    phase = job.method.phases[-1]
    params, scorer = job.best(phase), phase.scorer(config)
    tables = {e: jnp.zeros((3, TABLES[e] * 16)) for e in scorer.experts if e in TABLES}
    none, numbers = np.zeros((0, 0), np.int32), np.zeros(0, np.int32)
    data = DeviceData(none, none, numbers, numbers, jnp.asarray(job.transform(new)))
    items = scorer.item_vectors({**params, "tables": tables}, jnp.arange(3), data)
    gates = np.array(scorer.gates(params, items, jnp.full(3, config.data.buckets)))
    vectors = {e: np.asarray(x) for e, x in vectors_of(items).items()}
    known = histories(dataset)
    users = model.user_vectors(known).reshape(37, len(scorer.experts), 16)
    total, weight = 0, 0
    for k, expert in enumerate(scorer.experts):
        if expert != "id":
            total = total + gates[:, k] * (users[:, k] @ vectors[expert].T)
            weight = weight + gates[:, k]
    np.testing.assert_allclose(
        more.user_vectors(known) @ more.item_vectors()[30:].T, total / weight, rtol=1e-4, atol=1e-5
    )
    found = more.recommend(known, k=33, exclude_history=False)
    assert all({"n1", "n2", "n3"} <= set(row) for row in found.items)
    assert (found.experts[np.isin(found.items, ["n1", "n2", "n3"])] != "id").all()
    np.testing.assert_array_equal(more.item_vectors()[:30], model.item_vectors())
    old = model.recommend(known, k=30, exclude_history=False).items
    for row, before in zip(found.items, old, strict=True):
        assert [i for i in row if not i.startswith("n")] == list(before)
    after_new = more.user_vectors([["i1", "n2"]])
    assert np.isfinite(after_new).all()
    assert not np.allclose(after_new, more.user_vectors([["i1"]]))


def test_new_items_that_cannot_be(train, text):
    model = pad_jax.load(train()[1])
    row = text[1:2]
    for ids, message in ((["i3"], "'i3' is in the model already"), (["n", "n"], "twice among the new ones")):
        with pytest.raises(UserError, match=message):
            model.with_items(ids, ids, np.repeat(row, len(ids), axis=0))
    with pytest.raises(UserError, match=r"must be \[1, \d+\], as those of random are, not \[1, 3\]"):
        model.with_items(["n"], ["N"], np.ones((1, 3), np.float32))
    with pytest.raises(UserError, match="NaN"):
        model.with_items(["n"], ["N"], np.full_like(row, np.nan))
    with pytest.raises(UserError, match="IDs alone cannot score items"):
        pad_jax.load(train(method="sasrec", backbone="gru4rec")[1]).with_items(["n"], ["N"], row)


def test_loading_needs_neither_data_nor_torch(trained, monkeypatch, tmp_path):
    (tmp_path / "text.safetensors").unlink()
    code = (
        "import sys, pad_jax; model = pad_jax.load(sys.argv[1]); print(model.recommend([['i1', 'i2']], k=3).items[0]); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(trained[1])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("'i") == 3


def test_a_model_that_is_not_there_or_damaged(trained, tmp_path):
    with pytest.raises(UserError, match="is missing: train the last phase"):
        pad_jax.load(tmp_path / "nowhere")
    path = trained[1] / "model" / "model.safetensors"
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-50]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            pad_jax.load(trained[1])


def recommended(config, workdir, **fields):
    """The job, and what it wrote."""
    config = replace(config, job="recommend", recommend=replace(config.recommend, **fields))
    run(config, workdir)
    path = workdir / "recommendations.parquet" if "output" not in fields else fields["output"]
    if str(path).endswith(".jsonl"):
        return [json.loads(line) for line in open(path)]
    return pl.read_parquet(path)


def test_the_job_writes_lists_of_all_users(trained, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pad_jax.recommend._USERS", 10)
    config, workdir = trained
    frame = recommended(config, workdir, k=4)
    found = pad_jax.load(workdir).recommend(histories(dataset), k=4)
    assert frame["user"].to_list() == [u for u in dataset.user_ids for _ in range(4)]
    assert frame["rank"].to_list() == [1, 2, 3, 4] * 37
    assert frame["item"].to_list() == list(found.items.reshape(-1))
    assert frame["title"].to_list() == list(found.titles.reshape(-1))
    assert frame["expert"].to_list() == list(found.experts.reshape(-1))
    np.testing.assert_allclose(frame["score"].to_numpy(), found.scores.reshape(-1), atol=1e-5)
    assert "lists of 37 users, 4 items each" in capsys.readouterr().out
    rows = recommended(config, workdir, k=4, output=str(tmp_path / "x.jsonl"), exclude_history=False)
    assert [row["user"] for row in rows] == list(dataset.user_ids)
    again = pad_jax.load(workdir).recommend(histories(dataset), k=4, exclude_history=False)
    assert [[item["item"] for item in row["items"]] for row in rows] == again.items.tolist()
    assert set(rows[0]["items"][0]) == {"item", "title", "score", "expert"}


def test_the_job_reads_histories_and_new_items(trained, dataset, text, tmp_path, capsys):
    config, workdir = trained
    lines = [{"user": "a", "history": ["i1", "x", "i2"]}, {"user": "b", "history": ["x"]}, {"user": "c", "history": []}]
    (tmp_path / "h.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (tmp_path / "new.csv").write_text("item,title\ni1,known\nn1,fresh thing\nn2,other\n")
    np.save(tmp_path / "v.npy", text[1:4])
    fields = {"catalogue": str(tmp_path / "new.csv"), "vectors": str(tmp_path / "v.npy"), "k": 32}
    frame = recommended(config, workdir, histories=str(tmp_path / "h.jsonl"), **fields)
    assert set(frame["user"]) == {"a"}
    assert {"n1", "n2"} <= set(frame["item"])
    assert frame.filter(pl.col("item") == "n1")["title"].to_list() == ["fresh thing"]
    assert frame.height == 30  # 32 items without the two of the history
    out = capsys.readouterr().out
    assert "2 new items, 1 that training knows" in out
    assert "2 events of items that the model does not know are left out" in out
    assert "2 users without a known event get no list" in out
    model = pad_jax.load(workdir).with_items(["n1", "n2"], ["", ""], text[2:4])
    np.testing.assert_array_equal(frame["item"].to_numpy()[:30], model.recommend([["i1", "i2"]], k=30).items[0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "h.jsonl, line 2: must be"),
        ('{"user": 1, "history": []}', "h.jsonl, line 2: must be"),
        ('{"user": "u", "history": [1]}', "h.jsonl, line 2: must be"),
        ('{"user": "\\ud800", "history": ["i1"]}', "h.jsonl, line 2: must be"),
        ("[]", "h.jsonl, line 2: must be"),
        ('{"user": "a", "history": ["i2"]}', "a user stands in the file twice"),
    ],
)
def test_histories_that_are_none(trained, tmp_path, line, message):
    (tmp_path / "h.jsonl").write_text('{"user": "a", "history": ["i1"]}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        recommended(*trained, histories=str(tmp_path / "h.jsonl"))
    assert not list(trained[1].glob("*recommendations*"))


def test_the_job_refuses_in_one_line(trained, tmp_path):
    config, workdir = trained
    for fields, message in (
        ({"output": str(tmp_path / "x.csv")}, r"must end in .parquet or .jsonl"),
        ({"k": 31}, "recommend.k=31 must be from 1 to the number of items, 30"),
        ({"histories": str(tmp_path / "none.jsonl")}, "cannot be read"),
        ({"catalogue": str(tmp_path / "none.csv")}, "does not exist"),
        ({"output": str(tmp_path / "text.safetensors" / "x.jsonl")}, "cannot be written"),
    ):
        with pytest.raises(UserError, match=message):
            recommended(config, workdir, **fields)
    with pytest.raises(UserError, match="holds no trained model"):
        recommended(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()
