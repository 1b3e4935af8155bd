"""Training from Python, against the command line."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import pad_jax
from pad_jax import sealed
from pad_jax.data import demo
from pad_jax.errors import UserError
from pad_jax.run import main
from pad_jax.workdir.results import read_ranks, read_results
from tests.support.data import ROOT, SMALL, sequences

#: A run of seconds.
TINY = {"method": "sasrec", "pretrain": {"epochs": 2}, **{n: v for n, v in SMALL.items() if n != "data.length"}}


def tables(dataset):
    """The tiny dataset as frames; the titles have words that several items share."""
    rows = [(user, item, time) for user, own in sequences(dataset).items() for time, item in enumerate(own)]
    events = pl.DataFrame(rows, ["user", "item", "time"], orient="row")
    titles = [f"{('red', 'blue')[n % 2]} {('box', 'cup', 'hat')[n % 3]} {n}" for n in range(dataset.items)]
    return events, pl.DataFrame({"item": list(dataset.item_ids), "title": titles})


@pytest.fixture
def shop(dataset, tmp_path, monkeypatch):
    """The frames, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tables(dataset)


def assert_same_runs(one, other):
    """Ranks, metrics and the model, bit for bit."""
    ranks, same = read_ranks(one), read_ranks(other)
    assert ranks.keys() == same.keys()
    for name, values in ranks.items():
        np.testing.assert_array_equal(values, same[name], err_msg=name)
    results = [read_results(path) for path in (one, other)]
    for phase, entry in results[0]["phases"].items():
        assert entry["test"] == results[1]["phases"][phase]["test"]
    arrays = [sealed.read_tensors(path / "model" / "model.safetensors", 2, "")[0] for path in (one, other)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, values in arrays[0].items():
        np.testing.assert_array_equal(values, arrays[1][name], err_msg=name)


@pytest.mark.slow
def test_fit_is_what_the_command_line_does(tmp_path, monkeypatch, capsys):
    """On the demo's events: 2,000 users and 1,000 items."""
    monkeypatch.chdir(tmp_path)
    events, items = demo.frames()
    fields = {"text.encoder": "tfidf", "model.width": 16, "sasrec.blocks": 1, "train.batch": 256, "blend.words": 16}
    fields |= {"pretrain.epochs": 2, "finetune.epochs": 1}
    model = pad_jax.fit(events, items, **fields)
    assert model.workdir == Path("runs/table/blend-sasrec-ce-best-s0")
    assert capsys.readouterr().out == ""
    events.write_csv("e.csv")
    items.write_csv("i.csv")
    flags = [f"--config.{n}={v}" for n, v in fields.items()]
    flags += ["--config.table.events=e.csv", "--config.table.catalogue=i.csv", "--workdir=cli"]
    assert main(["main.py", f"--config={ROOT}/configs/table.py", *flags]) == 0, capsys.readouterr().err
    assert_same_runs(model.workdir, Path("cli"))
    by_user = model.recommend(["user-0007", "user-0002"], k=5)
    histories = [events.filter(user=user)["item"].to_list() for user in ("user-0007", "user-0002")]
    np.testing.assert_array_equal(by_user.items, pad_jax.load("cli").recommend(histories, k=5).items)


@pytest.mark.slow
def test_a_fit_that_was_stopped_goes_on(shop, tmp_path):
    seen = []

    def stop(epoch):
        seen.append(epoch)
        if len(seen) == 1:
            raise KeyboardInterrupt

    whole = pad_jax.fit(*shop, workdir="whole", **TINY)
    with pytest.raises(KeyboardInterrupt):
        pad_jax.fit(*shop, workdir="parts", callbacks=[stop], **TINY)
    parts = pad_jax.fit(*shop, workdir="parts", callbacks=[stop], **TINY)
    assert [(e.phase, e.epoch) for e in seen] == [("pretrain", 1), ("pretrain", 2)]
    assert_same_runs(whole.workdir, parts.workdir)
    again = pad_jax.fit(*shop, workdir="parts", callbacks=[stop], **TINY)  # finished: nothing is trained
    assert len(seen) == 2
    assert again.results == parts.results
    lines = (tmp_path / "parts" / "pretrain" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2


@pytest.mark.slow
def test_callbacks_see_epochs_and_end_a_phase(shop, capsys):
    seen = []

    def stop(epoch):
        return epoch.epoch == 2

    model = pad_jax.fit(*shop, callbacks=[stop, seen.append], progress=True, **TINY | {"pretrain": {"epochs": 4}})
    assert "pretrain epoch 2: loss" in capsys.readouterr().out
    summary = model.results["phases"]["pretrain"]
    assert (summary["stopped"], summary["epochs"]) == ("callback", 2)
    assert [epoch.epoch for epoch in seen] == [1, 2]  # all are called
    assert seen[1].losses["loss"] > 0
    best = seen[summary["best_epoch"] - 1]
    assert best.valid["nDCG@10"] == pytest.approx(summary["valid"]["nDCG@10"])
    assert seen[1].best_epoch == summary["best_epoch"]


@pytest.mark.slow
def test_frames_of_pandas_and_files_are_the_same_data(shop, tmp_path):
    model = pad_jax.fit(*shop, **TINY)
    pandas = pytest.importorskip("pandas")
    frames = [pandas.DataFrame(frame.to_dict(as_series=False)) for frame in shop]
    trained = []
    same = pad_jax.fit(*frames, callbacks=[trained.append], **TINY)
    assert same.workdir == model.workdir
    assert not trained
    for name, frame in zip(("events", "items"), shop, strict=True):
        frame.write_csv(f"{name}.csv")
    same = pad_jax.fit("events.csv", Path("items.csv"), callbacks=[trained.append], **TINY)
    assert same.workdir == model.workdir
    assert not trained
    renamed = shop[0].rename({"user": "who", "time": "when"}), shop[1].rename({"title": "name"})
    columns = {"user": "who", "time": "when", "text": "{name}"}
    same = pad_jax.fit(*renamed, table=columns, callbacks=[trained.append], **TINY)
    assert same.workdir == model.workdir
    assert not trained


def test_what_fit_refuses_is_one_line(shop):
    for settings, message in (
        ({"pretrian": {"epochs": 1}}, "config.pretrian.epochs is not a field; did you mean 'pretrain.epochs'"),
        ({"pretrain": {"epoch": 1}}, "config.pretrain.epoch is not a field; did you mean 'pretrain.epochs'"),
        ({"pretrain": 5}, "config.pretrain is not a field"),
        ({"pretrain.epochs": 1.5}, "config.pretrain.epochs must be a whole number, not 1.5"),
        ({"loss": "cee"}, "config.loss='cee' is unknown: .*did you mean 'ce'"),
        ({"method": "blnd"}, "config.method='blnd' is unknown: .*did you mean 'blend'"),
        ({"recipe": "bst"}, "config.recipe='bst' is unknown"),
        ({"dataset": "../x"}, "names a folder under runs/"),
        ({"job": "evaluate"}, "config.job is set by fit itself: leave it out"),
        ({"table": {"events": "x.csv"}}, "config.table.events is set by fit itself"),
        ({"table": {"user": "who"}}, "events: there is no column 'who' among user, item, time"),
        ({"table": {"text": "{name}"}}, "items: there is no column 'name' among item, title"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            pad_jax.fit(*shop, **settings)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="events must be a data frame or the path of a file, not list"):
        pad_jax.fit([1], shop[1])
    with pytest.raises(UserError, match=r"nowhere.csv does not exist"):
        pad_jax.fit("nowhere.csv", shop[1], method="sasrec")


@pytest.mark.slow
def test_what_is_not_used_is_a_warning(shop):
    events, items = shop
    more = pl.concat([events, pl.DataFrame({"user": ["u0"], "item": ["strange"], "time": [99]})])
    with pytest.warns(UserWarning, match="not used: 1 of items that are not in the catalogue"):
        pad_jax.fit(more, items, **TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pad_jax.fit(more, items, progress=True, **TINY)  # which says it
        few = pl.DataFrame({"user": ["late", "late"], "item": ["i1", "i2"], "time": [98, 99]})
        pad_jax.fit(pl.concat([events, few]), items, **TINY)  # a user without a target, whose events are used


@pytest.mark.slow
def test_later_events_are_ranked(shop, dataset):
    model = pad_jax.fit(*shop, **TINY)
    table = model.evaluate()
    assert table.columns[:6] == ["scorer", "split", "group", "users", "HR@1", "HR@5"]
    whole = table.filter(scorer="pretrain", split="test", group="all")
    assert whole["nDCG@10"].item() == model.results["phases"]["pretrain"]["test"]["nDCG@10"]
    assert set(table["scorer"]) > {"pretrain", "popularity"}
    own = sequences(dataset)
    rows = [(user, item, time) for user, items in own.items() for time, item in enumerate(items)]
    whole = pl.DataFrame(rows, ["user", "item", "time"], orient="row")
    later = whole.filter(pl.col("time") == pl.col("time").max().over("user"))
    before = whole.join(later, on=["user", "time"], how="anti")
    found = model.with_events(before).evaluate(later).filter(group="all")
    ranks = model.ranks([items[:-1] for items in own.values()], [items[-1] for items in own.values()])
    assert found["users"].item() == dataset.users
    assert found["HR@10"].item() == pytest.approx((ranks <= 10).mean())
    with pytest.raises(UserError, match="no histories of users"):
        pad_jax.load(model.workdir).evaluate(later)
    with pytest.raises(UserError, match="no user has an event of a known item"):
        model.evaluate(later.with_columns(user=pl.lit("x")))


@pytest.mark.slow
def test_the_page_runs_as_it_stands(shop, tmp_path, monkeypatch, capsys):
    """Its lines on the tiny shop, with a budget of seconds."""
    page = (ROOT / "docs" / "library.md").read_text()
    fields = {"text.encoder": "tfidf", "blend.words": 8, "finetune": {"epochs": 1}, **TINY, "method": "blend"}
    fit = pad_jax.fit
    monkeypatch.setattr(pad_jax, "fit", lambda *tables, **given: fit(*tables, **given | fields), raising=False)
    events = shop[0].with_columns(pl.col("user").replace("u7", "user-7"), pl.col("item").str.replace("i", "item-"))
    items = shop[1].with_columns(pl.col("item").str.replace("i", "item-"))
    space = {"events": events, "items": items, "later": events.filter(pl.col("time") > 1)}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "library.md", "exec"), space)
    assert capsys.readouterr().out.startswith("user-7 None ['item-")
    saved = pad_jax.load("models/shop")
    assert (saved.item_ids[-1], saved.artifact.retired) == ("item-new", {"item-2"})
    assert saved.titles[1] == "Another title"


def test_importing_is_quick_and_typed():
    code = (
        "import sys, pad_jax; assert 'jax' not in sys.modules and 'polars' not in sys.modules; "
        "assert set(pad_jax.__all__) == {*pad_jax._HOMES, '__version__'}; "
        "assert all(getattr(pad_jax, name) for name in pad_jax.__all__); "
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        _ = pad_jax.fitt
