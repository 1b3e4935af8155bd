"""Where runs are, and what works with them later: other settings, tables of today, data after the training's end."""

import json
import shutil
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

import pad_jax
from pad_jax.config import config_dict, resolve
from pad_jax.errors import UserError
from pad_jax.registry import SECTIONS
from pad_jax.run import main
from pad_jax.settings import setting
from pad_jax.workdir.identity import Workdir, differences, digest, place_of, read_config
from tests.support.data import SMALL, small_config

RUN = "runs/shop/sasrec-sasrec-ce-best-s0"
FILE = """
from pad_jax.config import config_dict


def get_config(job="all"):
    config = config_dict("shop", job, recipe="best", method="sasrec")
    config.data.reader = "table"
    config.table.events = "events.csv"
    config.table.catalogue = "items.csv"
    config.pretrain.epochs = 1
"""
FILE += "".join(f"    config.{name} = {value!r}\n" for name, value in SMALL.items() if name != "data.length")
FILE += "    return config\n"
ROWS = [(f"u{u:02d}", f"i{(7 * u + 3 * n) % 20}", 100 * n + u) for u in range(30) for n in range(6 + u % 3)]


@dataclass(frozen=True)
class Mine:
    depth: int = setting(2, "of something")


def write(events, items=20):
    lines = "".join(f"{user},{item},{time}\n" for user, item, time in events)
    with open("events.csv", "w") as file:
        file.write("user,item,time\n" + lines)
    with open("items.csv", "w") as file:
        file.write("item,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(items)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a shop's tables, its file, and a run."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(ROWS)
        (folder / "shop.py").write_text(FILE)
        assert main(["main.py", "--config=shop.py"]) == 0
    return folder


@pytest.fixture
def shop(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(name, *flags):
    return main(["main.py", f"--config=shop.py:{name}", *flags])


def kept(path=RUN):
    return json.loads(open(f"{path}/results.json").read())


@pytest.mark.slow
def test_settings_of_a_file_and_of_the_data_are_what_was_done(shop):
    """One epoch is one epoch, and the length that the data chose is a number."""
    assert kept()["phases"]["pretrain"]["epochs"] == 1
    config = json.loads((shop / RUN / "config.json").read_text())["config"]
    assert config["data"]["length"] == 20
    assert (config["data"]["keep"], config["data"]["whole"]) == (0, True)
    assert kept()["served"] == "pretrain"
    assert kept()["until"] == 729


@pytest.mark.slow
def test_another_configuration_has_a_folder_of_its_own(shop, capsys):
    """And the same again finds its own; which of them a later job means has to be said."""
    before = (shop / RUN / "results.json").read_bytes()
    for _ in range(2):
        assert job("all", "--config.train.weight_decay=0.5") == 0
    assert "pretrain: finished before" in capsys.readouterr().out
    (other,) = [p for p in (shop / "runs" / "shop").glob("sasrec-*") if p != shop / RUN]
    assert other.name.startswith("sasrec-sasrec-ce-best-s0-")
    assert (shop / RUN / "results.json").read_bytes() == before
    assert job("recommend") == 0  # the run of the file's own settings
    assert f"settings and model from {RUN}\n" in capsys.readouterr().out
    assert job("recommend", "--config.train.weight_decay=0.5") == 0
    assert f"settings and model from runs/shop/{other.name}\n" in capsys.readouterr().out
    assert main(["main.py", "--config=table:recommend", "--config.dataset=shop"]) == 2
    error = capsys.readouterr().err
    assert f"holds 2 finished runs; choose one with --workdir: {RUN}, runs/shop/{other.name}" in error
    assert job("recommend", f"--workdir={other.relative_to(shop)}", "--config.train.weight_decay=0.25") == 2
    assert "was made with config.train.weight_decay=0.5, not 0.25" in capsys.readouterr().err
    assert job("recommend", f"--workdir={RUN}", "--config.eval.serve=last") == 2
    assert "the job evaluate with this setting makes it of another" in capsys.readouterr().err


@pytest.mark.slow
def test_the_only_run_of_a_dataset_is_the_one_that_is_meant(shop, capsys):
    """Its settings are those of its folder, whatever else the command says of training."""
    assert main(["main.py", "--config=table:recommend", "--config.dataset=shop", "--config.recommend.k=3"]) == 0
    lists = pl.read_parquet(f"{RUN}/recommendations.parquet")
    assert lists.height == 30 * 3
    found = pad_jax.load(RUN).recommend([[item for user, item, _ in ROWS if user == "u00"]], k=3)
    assert lists["item"].to_list()[:3] == found.items[0].tolist()
    assert main(["main.py", "--config=table:evaluate", "--config.dataset=none"]) == 2
    assert "runs/none holds no finished run; train one with: " in capsys.readouterr().err
    assert main(["main.py", "--config=shop.py:recommend", "--config.seed=4"]) == 2
    assert "runs/shop holds no finished run with these settings" in capsys.readouterr().err


@pytest.mark.slow
def test_yesterdays_model_takes_todays_tables(shop, capsys):
    """New events, users and items; whom it does not know gets what is popular."""
    before = pad_jax.load(RUN)
    today = [*ROWS, ("u00", "i19", 9000), ("new", "i1", 9001), ("new", "i2", 9002), ("odd", "i20", 9003)]
    write(today, items=21)
    assert job("recommend", "--config.recommend.k=4") == 0
    said = capsys.readouterr().out
    assert "the 1 new items are left out: the phase pretrain of method sasrec" in said
    assert "1 users without a known event get what is popular" in said
    lists = (
        pl.read_parquet(f"{RUN}/recommendations.parquet").group_by("user", maintain_order=True).agg("item", "expert")
    )
    assert lists["user"].to_list() == sorted({user for user, _, _ in today})
    found = {user: items for user, items, _ in lists.rows()}
    histories = {user: [i for u, i, _ in today if u == user] for user in ("u00", "new")}
    for user, items in zip(histories, before.recommend(list(histories.values()), k=4).items, strict=True):
        assert found[user] == items.tolist()
    assert lists.filter(pl.col("user") == "odd")["expert"][0].to_list() == ["fallback"] * 4
    popular = before.popular(4)
    assert found["odd"] == popular.items[0].tolist()
    counts = before.artifact.counts[1:]
    assert popular.scores[0].tolist() == np.sort(counts)[::-1][:4].tolist()


@pytest.mark.slow
def test_other_data_are_evaluated_after_the_end_of_the_training(shop, capsys):
    """In a file of its own: the next event of each user who has one after it, among all items but those met before."""
    before, results = kept(), (shop / RUN / "results.json").read_bytes()
    write([*ROWS, ("u00", "i7", 730), ("u00", "i8", 731), ("u01", "i20", 800), ("u02", "i5", 729), ("new", "i1", 900)])
    assert job("evaluate") == 0
    said = capsys.readouterr().out
    assert "1 users have an event after 729, where those end; 1 more have none before it" in said
    (path,) = (shop / RUN).glob("evaluation-*.json")
    found = json.loads(path.read_text())
    assert found["test"]["users"] == 1
    assert found["after"] == before["until"]
    model = pad_jax.load(RUN)
    history = [item for user, item, _ in ROWS if user == "u00"]
    order = model.recommend([history], k=len({f"i{n}" for n in range(20)} - set(history))).items[0].tolist()
    rank = 1 / found["test"]["MRR"]
    assert abs(order.index("i7") + 1 - rank) <= 0.5
    assert (shop / RUN / "results.json").read_bytes() == results
    write(ROWS)
    assert job("evaluate") == 0  # the run's own again
    assert len(list((shop / RUN).glob("evaluation-*.json"))) == 1
    assert kept()["test"] == before["test"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "no user has an event of a known item after 729"),
        (("--config.table.time=",), "without times (config.table.time) nobody knows which events are later"),
        (("--config.table.time=when",), 'unable to find column "when"'),
    ],
)
def test_other_data_that_cannot_be_evaluated(shop, flags, message, capsys):
    write(ROWS[:-1])
    assert job("evaluate", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list((shop / RUN).glob("evaluation-*"))


def test_places_of_configurations(tmp_path, monkeypatch):
    """A hash of what changes results, and of nothing else."""
    config = resolve(config_dict("demo", "all"))
    other = resolve(config_dict("demo", "all", seed=1))
    assert place_of(tmp_path / "w", config, "") == tmp_path / "w"
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "results.json").write_text(json.dumps({"format": 1, "phases": {"pretrain": {}}}))
    identity = {"config": {"dataset": "demo", "seed": 1}, "dataset_sha256": "", "text_sha256": None}
    (tmp_path / "w" / "config.json").write_text(json.dumps(identity))
    assert "seed" in differences(tmp_path / "w", config)
    assert place_of(tmp_path / "w", config, "").name == f"w-{digest(config, '')}"
    assert digest(config, "") != digest(other, "")
    moved = config_dict("demo", "all")
    moved.data.path, moved.recommend.k, moved.study.seeds = "elsewhere", 3, (5,)
    assert digest(resolve(moved), "") == digest(config, "")
    before = digest(config, "")
    SECTIONS.register("mine", Mine)
    assert digest(resolve(config_dict("demo", "all")), "") == before  # what is new and means what was done before
    own = config_dict("demo", "all")
    own.mine.depth = 3
    assert digest(resolve(own), "") != before


GOOD = {"user": ["u1"] * 6, "item": [1, 2, 3, 4, 5, 6], "time": [1, 2, 3, 4, 5, 6]}
CATALOGUE = {"item": [1, 2, 3, 4, 5, 6], "title": list("abcdef")}


@pytest.mark.parametrize(
    ("events", "items", "message"),
    [
        ({}, CATALOGUE, "events.parquet: unable to find column"),
        ({n: v for n, v in GOOD.items() if n != "time"}, CATALOGUE, 'unable to find column "time"'),
        (GOOD, {"item": [1]}, 'items.parquet: unable to find column "title"'),
        ({n: v[:0] for n, v in GOOD.items()}, CATALOGUE, "events.parquet has no events"),
        (GOOD, {n: v[:0] for n, v in CATALOGUE.items()}, "items.parquet has no items"),
        (GOOD, {"item": ["1", "2"], "title": [None, ""]}, "no item has a value in title"),
        (GOOD, {"item": [1, 2, 1], "title": ["a", "b", "c"]}, "item '1' appears twice in the file"),
        (GOOD | {"item": [1.5] * 6}, CATALOGUE, "column 'item' holds ids, which must be text or whole numbers"),
        (GOOD | {"item": [f"i{n}" for n in range(6)]}, CATALOGUE, "no user has 5 events of items in the catalogue"),
        (GOOD | {"item": [True] * 6}, CATALOGUE, "column 'item' holds Boolean"),
        (GOOD | {"time": [float("nan")] * 6}, CATALOGUE, "events.parquet has no events"),
        (GOOD | {"user": [None] * 6}, CATALOGUE, "events.parquet has no events"),
    ],
)
def test_bad_tables_are_one_line_and_leave_nothing(events, items, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text(FILE.replace(".csv", ".parquet"))
    pl.DataFrame(events, strict=False).write_parquet("events.parquet")
    pl.DataFrame(items, strict=False).write_parquet("items.parquet")
    assert job("all") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    left = {p.name for p in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"events.parquet", "items.parquet", "shop.py"}


def test_a_damaged_configuration_is_made_again_from_that_of_a_phase(tmp_path, capsys):
    config = small_config(method="sasrec")
    workdir = Workdir(tmp_path / "w", config, "data", None, 1)
    workdir.write_config("pretrain")
    whole = (tmp_path / "w" / "config.json").read_bytes()
    (tmp_path / "w" / "config.json").write_bytes(whole[:-40])
    assert read_config(tmp_path / "w")["of"] == workdir.of
    assert (tmp_path / "w" / "config.json").read_bytes() == whole
    assert "made again from" in capsys.readouterr().out
    for path in (tmp_path / "w").rglob("config.json"):
        path.write_bytes(b"{}")
    with pytest.raises(UserError, match="is not a configuration of this project; use a new --workdir"):
        read_config(tmp_path / "w")


@pytest.mark.slow
def test_lists_have_the_popularity_that_is_asked_for(shop, capsys):
    """Of `evaluate`, which keeps it, or of this one call; also where the data are later ones."""

    def scores():
        return pl.read_parquet(f"{RUN}/recommendations.parquet")["score"].to_list()

    assert job("recommend") == 0
    usual = scores()
    assert job("evaluate", "--config.eval.popularity=3") == 0
    assert "sasrec, IDs only, popularity +3" in capsys.readouterr().out
    assert job("recommend") == 0
    assert "scores have +3 * log(1 + training count)" in capsys.readouterr().out
    kept = scores()
    histories = [[item for user, item, _ in ROWS if user == "u00"]]
    np.testing.assert_allclose(kept[:10], pad_jax.load(RUN).recommend(histories).scores[0], rtol=1e-6)
    assert job("recommend", "--config.eval.popularity=0") == 0
    assert scores() == usual
    assert kept != usual
    assert job("recommend", "--config.eval.popularity=valid") == 0
    assert job("recommend", "--config.eval.popularity=most") == 2
    assert "must be a number or one of valid, not 'most'" in capsys.readouterr().err
    write([*ROWS, ("u00", "i19", 9000), ("u01", "i3", 9001)])
    found = {}
    for beta in ("3", "0"):
        assert job("evaluate", *([] if beta == "3" else ["--config.eval.popularity=0"])) == 0
        (path,) = (shop / RUN).glob("evaluation-*.json")
        found[beta] = json.loads(path.read_text())["phases"]["pretrain"]["popularity"]["beta"]
    assert found == {"3": 3.0, "0": 0.0}
