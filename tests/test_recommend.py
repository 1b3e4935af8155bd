"""The job `recommend`."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import pad_jax
from pad_jax.errors import UserError
from pad_jax.run import run
from tests.support.data import histories

pytestmark = pytest.mark.xdist_group("serving")  # its tests share trainings


def recommended(config, workdir, **fields):
    """The job, and what it wrote."""
    config = replace(config, job="recommend", recommend=replace(config.recommend, **fields))
    run(config, workdir)
    path = workdir / "recommendations.parquet" if "output" not in fields else fields["output"]
    if str(path).endswith(".jsonl"):
        return [json.loads(line) for line in open(path)]
    return pl.read_parquet(path)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_job_reads_histories_and_new_items(trained, dataset, text, tmp_path, capsys):
    config, workdir = trained
    lines = [{"user": "a", "history": ["i1", "x", "i2"]}, {"user": "b", "history": ["x"]}, {"user": "c", "history": []}]
    (tmp_path / "h.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (tmp_path / "new.csv").write_text("item,title\ni1,known\nn1,fresh thing\nn2,other\n")
    np.save(tmp_path / "v.npy", text[1:4])
    fields = {"catalogue": str(tmp_path / "new.csv"), "vectors": str(tmp_path / "v.npy"), "k": 32}
    frame = recommended(config, workdir, histories=str(tmp_path / "h.jsonl"), **fields)
    silent, frame = frame.filter(pl.col("user") != "a"), frame.filter(pl.col("user") == "a")
    assert set(silent["expert"]) == {"fallback"}
    counts = dict(zip(dataset.item_ids, dataset.counts[1:], strict=True))
    for user in ("b", "c"):
        popular = silent.filter(pl.col("user") == user)
        assert popular["score"].to_list() == sorted([0, 0, *counts.values()], reverse=True)
        assert popular["score"].to_list() == [counts.get(item, 0) for item in popular["item"]]
    assert {"n1", "n2"} <= set(frame["item"])
    assert frame.filter(pl.col("item") == "n1")["title"].to_list() == ["fresh thing"]
    assert frame.height == 30  # 32 items without the two of the history
    out = capsys.readouterr().out
    assert "2 new items, 1 that training knows" in out
    assert "2 events of items that the model does not know are left out" in out
    assert "2 users without a known event get what is popular (expert fallback)" in out
    model = pad_jax.load(workdir).with_items(["n1", "n2"], ["", ""], text[2:4])
    np.testing.assert_array_equal(frame["item"].to_numpy()[:30], model.recommend([["i1", "i2"]], k=30).items[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "h.jsonl, line 2: must be"),
        ('{"user": true, "history": []}', "h.jsonl, line 2: must be"),
        ('{"user": "u", "history": [1.5]}', "h.jsonl, line 2: must be"),
        ('{"user": "\\ud800", "history": ["i1"]}', "h.jsonl, line 2: must be"),
        ("[]", "h.jsonl, line 2: must be"),
        ('{"user": "a", "history": ["i2"]}', "a user appears twice in the file"),
    ],
)
def test_histories_that_are_none(trained, tmp_path, line, message):
    (tmp_path / "h.jsonl").write_text('{"user": "a", "history": ["i1"]}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        recommended(*trained, histories=str(tmp_path / "h.jsonl"))
    assert not list(trained[1].glob("*recommendations*"))


@pytest.mark.slow
def test_the_job_refuses_in_one_line(trained, tmp_path):
    config, workdir = trained
    for fields, message in (
        ({"output": str(tmp_path / "x.csv")}, r"must end in .parquet or .jsonl"),
        ({"k": 31}, "recommend.k=31 must be from 1 to the number of items, 30"),
        ({"histories": str(tmp_path / "none.jsonl")}, "none.jsonl does not exist"),
        ({"catalogue": str(tmp_path / "none.csv")}, "does not exist"),
        ({"output": str(tmp_path / "text.safetensors" / "x.jsonl")}, "cannot be written"),
    ):
        with pytest.raises(UserError, match=message):
            recommended(config, workdir, **fields)
    with pytest.raises(UserError, match="holds no finished phase"):
        recommended(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()
