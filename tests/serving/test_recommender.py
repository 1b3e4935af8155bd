"""Top-k lists, vectors and new items from a trained workdir."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import pad_jax
from pad_jax.batching.device import DeviceData
from pad_jax.errors import UserError
from pad_jax.methods import METHODS
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import vectors_of
from pad_jax.pipeline import Run
from pad_jax.serving import recommender
from pad_jax.workdir.results import read_ranks
from tests.support.data import histories

pytestmark = pytest.mark.xdist_group("serving")  # its tests share trainings


@pytest.mark.slow
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
    assert set(found.experts.reshape(-1)) <= set(model.artifact.scorer.experts)


@pytest.mark.slow
def test_an_exact_index_over_the_vectors_gives_the_same_lists(trained, dataset, tmp_path):
    model = pad_jax.load(trained[1])
    known = histories(dataset)
    users, items = model.user_vectors(known), model.item_vectors()
    assert repr(model) == "Model(pad of demo: 30 items, experts ('id', 'aligned', 'text'))"
    assert users.shape == (37, 3 * 16)
    assert items.shape == (30, 3 * 16)
    scores = users.astype(np.float64) @ items.T.astype(np.float64)
    found = model.recommend(known, k=30, exclude_history=False)
    order = np.argsort(-scores, axis=1, kind="stable")
    np.testing.assert_array_equal(found.items, np.array(model.item_ids, object)[order])
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, axis=1), rtol=1e-4, atol=1e-5)
    assert found.titles[0, 0] == model.titles[order[0, 0]]
    parts = (users[:, None] * items[None]).reshape(37, 30, 3, 16).sum(axis=3)
    expected = np.array(model.artifact.scorer.experts, object)[parts.argmax(axis=2)]
    np.testing.assert_array_equal(found.experts, np.take_along_axis(expected, order, axis=1))
    model.save_vectors(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "v.safetensors")["items"], items)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 16, 17, 37])
def test_lists_do_not_depend_on_the_batch(trained, dataset, count):
    model = pad_jax.load(trained[1])
    whole = model.recommend(histories(dataset), k=7)
    part = model.recommend(histories(dataset)[:count], k=7)
    np.testing.assert_array_equal(part.items, whole.items[:count])
    np.testing.assert_allclose(part.scores, whole.scores[:count], atol=1e-5)
    assert model.recommend([], k=7).items.shape[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 4, 8, 9])
def test_all_items_but_the_history_are_candidates(trained, monkeypatch, count):
    monkeypatch.setattr(recommender, "_MET", 1)
    model = pad_jax.load(trained[1])
    found = model.recommend([model.item_ids[:count]], k=30 - count)
    assert sorted(found.items[0]) == sorted(model.item_ids[count:])


@pytest.mark.slow
def test_where_candidates_run_out(trained, dataset):
    model = pad_jax.load(trained[1])
    long = list(dataset.item_ids[:25])
    found = model.recommend([long, long[:1]], k=29)
    assert set(found.items[0]) == {*dataset.item_ids[25:], ""}
    assert (found.items[0] == "").sum() == 24
    assert np.isneginf(found.scores[0, 5:]).all()
    assert "" not in found.items[1]


@pytest.mark.slow
def test_what_cannot_be_recommended_is_one_line(trained, dataset):
    model = pad_jax.load(trained[1])
    for k in (0, 31):
        with pytest.raises(UserError, match="k must be from 1 to the number of items, 30"):
            model.recommend([["i1"]], k=k)
    with pytest.raises(UserError, match="history 1 names no item that the model knows"):
        model.recommend([["i1"], ["strange"]], strict=True)
    known = model.recommend([["i1", "strange", "i2"]]).items
    np.testing.assert_array_equal(known, model.recommend([["i1", "i2"]]).items)


@pytest.mark.slow
@pytest.mark.parametrize("run_of", [("pad",), ("pad", "sasrec", "bucket_emb"), ("disco",), ("make", "caser")])
def test_new_items_are_scored_without_ids(train, dataset, text, run_of):
    """Against the scorer with a row of zeros in every ID table, the ID expert's gate at 0, and the coldest bucket."""
    config, workdir = train(*run_of)
    random = np.random.default_rng(5)
    new = random.normal(size=(3, text.shape[1])).astype(np.float32)
    model = pad_jax.load(workdir)
    more = model.with_items(["n1", "n2", "n3"], ["New", "Newer", "Newest"], new)
    job = Run(config, workdir, str)
    phase = job.method.phases[-1]
    params, scorer = job.best(phase), phase.scorer(config)
    tables = {e: jnp.zeros((3, EXPERTS[e].columns * 16)) for e in scorer.experts if EXPERTS[e].columns}
    none, numbers = np.zeros((0, 0), np.int32), np.zeros(0, np.int32)
    data = DeviceData(none, none, none, numbers, numbers, jnp.asarray(job.text.transform(new)))
    items = scorer.item_vectors({**params, "tables": tables}, jnp.arange(3), data)
    gates = np.array(scorer.gates(params, items, jnp.full(3, config.data.buckets), jnp.zeros(3, int)))
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


@pytest.mark.slow
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
