"""Workdirs that version 0.1.0 (commit b14ecc0) made are read, ranked, reported and served.

`fixtures/runs-0.1.tar.xz` holds a shop of 40 users and 30 items (events.csv, items.csv, shop.py) and the folder runs/
that these commands left there:

    A="--config.model.width=16 --config.data.length=8 --config.mmd.group=4 --config.train.batch=16
       --config.pretrain.epochs=2 --config.align.epochs=2 --config.finetune.epochs=2"
    python main.py --config=shop.py $A; python main.py --config=shop.py $A --config.method=sasrec
    python main.py --config=shop.py:recommend $A
"""

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import pad_jax
from pad_jax.methods import METHODS
from pad_jax.methods.pad import pad
from pad_jax.registry import Entry
from pad_jax.report.__main__ import report
from pad_jax.run import main
from pad_jax.settings import specs
from pad_jax.workdir.identity import read_config
from pad_jax.workdir.results import read_ranks

ARCHIVE = Path(__file__).parent / "fixtures" / "runs-0.1.tar.xz"
PAD, SASREC = (Path(f"runs/shop/{method}-sasrec-ce-best-s0") for method in ("pad", "sasrec"))
FIELDS = {
    "model.width": 16,
    "data.length": 8,
    "mmd.group": 4,
    "train.batch": 16,
    "pretrain.epochs": 2,
    "align.epochs": 2,
    "finetune.epochs": 2,
    "model.heads": 2,  # by the name it had then
    "data.keep": 23,  # what own tables had then
    "data.whole": False,
    "data.windows": "latest",
    "model.fusion": "add",  # what recipe `best` had then
    "gate.kind": "bucket",
    "gate.start": "(-2.0,1.0,0.0)",
    "train.gate_rate": 0.03,
    "experts.copy_encoder": False,
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def shop(unpacked, tmp_path, monkeypatch):
    """A folder of its own with everything that is in the archive."""
    shutil.copytree(unpacked, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(name="all", *extra):
    return main(["main.py", f"--config=shop.py:{name}", *(f"--config.{n}={v}" for n, v in FIELDS.items()), *extra])


def kept(path):
    return json.loads((path / "results.json").read_text())


@pytest.mark.slow
def test_the_model_is_served_as_it_is(shop):
    for path in (PAD, SASREC):
        model = pad_jax.load(path)
        assert len(model.item_ids) == 30
        assert model.recommend([["i01", "i04"]], k=5).items.shape == (1, 5)
    histories = pl.read_csv("events.csv").sort("time").group_by("user", maintain_order=True).agg("item")
    lists = pl.read_parquet(PAD / "recommendations.parquet")
    found = pad_jax.load(PAD).recommend(histories["item"].to_list(), k=10)
    for user, items, scores in zip(histories["user"], found.items, found.scores, strict=True):
        then = lists.filter(pl.col("user") == user)
        np.testing.assert_allclose(scores, then["score"].to_numpy(), rtol=1e-4, atol=1e-5)
        assert (np.array(then["item"].to_list()) == items).mean() > 0.8  # equal scores may change places
    new = pad_jax.load(PAD).with_items(["new"], ["A title"], np.ones((1, 384), np.float32))
    assert new.item_ids[-1] == "new"


@pytest.mark.slow
def test_it_is_ranked_again_with_the_same_result(shop, capsys):
    before, ranks = kept(PAD), read_ranks(PAD)
    assert job("evaluate") == 0, capsys.readouterr().err
    for name, values in read_ranks(PAD).items():
        if name not in ranks:  # baselines of today
            continue
        masked = (values > 1000) & (ranks[name] > 10)  # which then had the rank behind all candidates
        np.testing.assert_allclose(np.where(masked, ranks[name], values), ranks[name], err_msg=name)
    same = {n: v for n, v in before["test"].items() if n in ("HR@1", "HR@10", "nDCG@10", "users")}
    assert same
    assert kept(PAD)["test"].items() >= same.items()
    assert kept(PAD)["served"] == "finetune"
    assert kept(PAD)["phases"]["align"]["epochs"] == before["phases"]["align"]["epochs"]
    text = report([PAD], [SASREC])
    assert "pad (sasrec, ce, recipe best, finetune)" in text


def test_what_its_method_was_then_is_not_trained_on(shop, capsys):
    results = kept(PAD)
    del results["phases"]["finetune"]
    (PAD / "results.json").write_text(json.dumps(results))
    shutil.rmtree(PAD / "finetune")
    assert job() == 2
    assert "was made under rules 1 of the method 'pad', which has rules 2 now" in capsys.readouterr().err
    assert not (PAD / "finetune").exists()


def test_a_field_that_it_does_not_know_means_what_was_done_then(shop):
    """As if the field had come later: it has its default, and not what the recipe of today would say."""
    found = read_config(PAD)
    assert found["rules"] == 1
    assert found["config"]["sasrec.blocks"] == 2
    assert not {"model.blocks", "model.caser_vertical"} & set(found["config"])
    file = json.loads((PAD / "config.json").read_text())
    assert file["config"]["train"].pop("adjustment") == found["config"]["train.adjustment"] == 0.2
    (PAD / "config.json").write_text(json.dumps(file))
    assert read_config(PAD)["config"]["train.adjustment"] == 0.0
    assert set(read_config(PAD)["config"]) >= set(specs())


def test_new_defaults_leave_it_alone(shop, capsys):
    """Own tables keep every event now: a run with today's defaults is another one, and goes elsewhere."""
    assert main(["main.py", "--config=shop.py:evaluate"]) == 2
    assert f"runs/shop holds 2 finished runs; choose one with --workdir: {PAD}, {SASREC}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluate", "all", "recommend"])
@pytest.mark.slow
def test_older_rules_are_evaluated_and_served_and_not_trained(shop, name, monkeypatch, capsys):
    """The method as it was then is what ranks; a finished run is left as it is, an unfinished one is refused."""
    today = METHODS.entry("pad")
    asked = []

    def as_it_was(config):
        asked.append(1)
        return pad(config)

    def never(config):
        raise AssertionError("today's method is another one")

    entry = Entry(never, today.source, rules=2, older={1: as_it_was})
    monkeypatch.setitem(METHODS._entries, "pad", entry)
    if name == "all":
        results = kept(PAD)
        del results["phases"]["finetune"]
        (PAD / "results.json").write_text(json.dumps(results))
    code = job(name)
    output = capsys.readouterr()
    assert asked
    if name == "all":
        assert code == 2
        (line,) = [line for line in output.err.splitlines() if line.startswith("error: ")]
        assert "under rules 1 of the method 'pad', which has rules 2 now" in line
        assert "new --workdir" in line
    else:
        assert code == 0, output.err


def test_rules_that_nobody_knows_are_one_line(shop, monkeypatch, capsys):
    monkeypatch.setitem(METHODS._entries, "pad", replace(METHODS.entry("pad"), rules=3, older={}))
    assert job("evaluate") == 2
    assert "made under rules 1 of the method 'pad', and this version knows 3" in capsys.readouterr().err
