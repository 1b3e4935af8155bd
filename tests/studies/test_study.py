"""Studies from end to end at toy size, in one folder: what one has run, the others use."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pad_jax import cli
from pad_jax.data.readers import READERS, Reader
from pad_jax.errors import UserError
from pad_jax.evaluation.metrics import ndcg
from pad_jax.run import run
from pad_jax.settings import as_dict, dotted
from pad_jax.studies import study
from pad_jax.studies.ablate import PAD
from pad_jax.studies.study import Row, Study, inherit
from pad_jax.workdir.identity import digest
from pad_jax.workdir.results import read_ranks, read_results
from tests.studies.conftest import EPOCHS
from tests.studies.test_users import Data, consistent
from tests.support.data import write_table
from tests.support.registries import put

pytestmark = pytest.mark.xdist_group("studies")  # one worker: they share a folder
CLEAR = jax.clear_caches


def page_of(folder, job, suffix):
    name = f"{job}-sasrec-ce-best-{suffix}"
    html = (folder / f"{name}.html").read_text()
    assert html.count("<img ") == html.count("data:image/svg+xml;base64,")
    markdown = (folder / f"{name}.md").read_text()
    assert "python main.py" in markdown
    for line in markdown.splitlines():
        if line.startswith("!["):
            assert (folder / line.rpartition("(")[2].rstrip(")")).exists()
    return markdown


def command(job, _):
    return f"python main.py --config=configs/demo.py:{job}"


@pytest.mark.slow
def test_compare_and_its_continuation(world, folder, capsys):
    only = {"study.only": ("sasrec", "pad")}
    maps, held = Path("/proc/self/maps"), []
    with pytest.MonkeyPatch.context() as patch:
        CLEAR()  # what tests before this one have left
        if maps.exists():  # a system allows a process 65,530 maps, and the programs of one run hold a thousand
            patch.setattr(jax, "clear_caches", CLEAR)
            patch.setattr(study, "say", lambda line: held.append(len(maps.read_text().splitlines())))
        run(world("compare", **only), folder, command)
    assert len(held) in (0, 4)  # with the plan, before each row, and before the report
    assert max(held, default=0) - min(held, default=0) < 400
    markdown = page_of(folder, "compare", "s0-part")
    pad = read_results(folder / "pad-sasrec-ce-best-s0")
    assert f"| **pad** | {100 * pad['test']['HR@10']:.2f} | {100 * pad['test']['nDCG@10']:.2f} |" in markdown
    assert "against the best baseline, sasrec" in markdown
    assert "| p against sasrec |" in markdown
    assert f"{pad['phases']['finetune']['parameters']:,}" in markdown
    sasrec = read_results(folder / "sasrec-sasrec-ce-best-s0,pretrain.epochs=3")  # PAD's epochs in all
    assert [r["phases"]["pretrain"]["epochs"] for r in (sasrec, pad)] == [3, 1]
    steps = pad["phases"]["pretrain"]["updates"]
    assert sasrec["phases"]["pretrain"]["updates"] == 3 * steps
    two, three = (f"{n * steps / 1000:.1f}" for n in (2, 3))
    assert f"| pad | {three} | {two} | {two} |" in markdown
    assert f"| sasrec | {three} | {three} | - |" in markdown
    for heading in ("## Updates", "## Lists", "## Learning curves"):
        assert heading in markdown
    capsys.readouterr()

    run(world("compare", **only | {"study.seeds": (0, 1)}), folder, command)  # seed 0 is not run again
    out = capsys.readouterr().out
    assert out.count("finished before") == 4
    assert read_results(folder / "pad-sasrec-ce-best-s0") == pad
    assert "±" in page_of(folder, "compare", "s0+1-part")


@pytest.mark.slow
def test_baselines_are_ranked_once_for_all_rows(world, tmp_path):
    """Whoever comes later has those of the first, to the bit; under other data they would be others."""
    rows = [Row("sasrec", "sasrec", {name: value}) for name, value in (("seed", 0), ("seed", 1), ("data.length", 3))]
    study = Study(world("compare"), tmp_path, "", rows)
    study = replace(study, dataset_sha256=study.run(rows[0], 0).dataset.fingerprint)
    study.train(rows[0], 0)
    first, second, other = (study.run(row, 0) for row in rows)
    for run_of_it in (second, other):
        study.lend_baselines(run_of_it)
    theirs, ranks = (of(first.path) for of in (read_results, read_ranks))
    assert other.workdir.results["baselines"] == {}
    assert not other.path.exists()
    assert read_results(second.path)["baselines"] == theirs["baselines"]
    assert read_results(second.path)["phases"] == {}
    lent = read_ranks(second.path)
    assert lent.keys() == {name for name in ranks if not name.endswith("/pretrain")}
    for name, values in lent.items():
        np.testing.assert_array_equal(values, ranks[name])


@pytest.mark.slow
def test_rows_share_what_they_would_repeat(world, folder):
    """The ablation of an expert has PAD's own phases 1 and 2, which a run of its own would reach bit for bit."""
    name = "without aligned expert"
    run(world("ablate", **{"study.only": (name,)}), folder, command)
    markdown = page_of(folder, "ablate", "s0-part")
    assert "| **PAD** |" in markdown
    row = folder / "pad-sasrec-ce-best-s0,experts.use=id+text"
    pad, variant = (read_results(folder / path) for path in ("pad-sasrec-ce-best-s0", row))
    assert variant["phases"]["align"] == pad["phases"]["align"]
    assert variant["phases"]["finetune"] != pad["phases"]["finetune"]
    minus = [f"{100 * (variant['test'][m] - pad['test'][m]):+.2f} [" for m in ("HR@10", "nDCG@10")]
    cells = next(line for line in markdown.splitlines() if line.startswith(f"| {name} |")).split(" | ")
    assert all(cell.startswith(difference) for cell, difference in zip(cells[3:5], minus, strict=True))
    alone = world("align", **{"experts.use": ("id", "text")})
    for job in ("pretrain", "align"):
        run(replace(alone, job=job), folder / "alone")
    ranks, expected = read_ranks(row), read_ranks(folder / "alone")
    for phase in ("pretrain", "align"):
        np.testing.assert_array_equal(ranks[f"test/{phase}"], expected[f"test/{phase}"])


@pytest.mark.slow
def test_backbones(world, folder):
    run(world("backbones", **{"study.only": ("sasrec sasrec", "sasrec pad")}), folder, command)
    markdown = page_of(folder, "backbones", "s0-part")
    assert "| SASRec, alone |" in markdown
    assert "| SASRec, PAD |" in markdown


@pytest.mark.slow
def test_analyse(world, folder, dataset):
    run(world("analyse"), folder, command)
    markdown = page_of(folder, "analyse", "s0")
    assert "nan" not in markdown
    three = next(line for line in markdown.splitlines() if line.startswith("| c. three, ID expert |"))
    assert three.endswith(" - |")  # no item is in the last bucket
    assert " 1.00 " not in three  # phase 3 moves it
    for name in ("frequency", "kendall", "distances-cold", "distances-warm", "gate"):
        assert (folder / f"analyse-sasrec-ce-best-s0-{name}.svg").exists()
    users = "analyse-sasrec-ce-best-s0-users.html"
    assert f"[{users}]({users})" in markdown
    assert f'href="{users}"' in (folder / "analyse-sasrec-ce-best-s0.html").read_text()
    shown = json.loads(Data((folder / users).read_bytes()).text)
    phases = {"PAD": ("pretrain", "align", "finetune"), "SASRec": ("pretrain",)}
    assert [own["name"] for own in shown["lists"]] == [f"{name}, {p}" for name, own in phases.items() for p in own]
    consistent(shown, dataset, 8)
    pad, sasrec = folder / "pad-sasrec-ce-best-s0", folder / "sasrec-sasrec-ce-best-s0,pretrain.epochs=3"
    assert [own["name"] for own in shown["lists"] if own["served"]] == [f"PAD, {read_results(pad)['served']}"]
    of = [read_ranks(pad)[f"test/{phase}"] for phase in phases["PAD"]] + [read_ranks(sasrec)["test/pretrain"]]
    split = dataset.split("test", 8)
    assert len(shown["users"]) == len(split.user) < 50  # every one
    for user in shown["users"]:
        place = split.user.tolist().index(dataset.user_ids.index(user["user"]))
        assert [own["rank"] for own in user["lists"]] == [ranks[place] for ranks in of]
    results = [read_results(pad)["phases"][phase]["test"] for phase in phases["PAD"]]
    for own, test in zip(shown["lists"], results, strict=False):
        assert (own["HR"], own["nDCG"]) == pytest.approx((test["HR@10"], test["nDCG@10"]))


@pytest.mark.parametrize(
    ("job", "fields", "message"),
    [
        ("compare", {"study.only": ("sasrek",)}, "did you mean 'sasrec'"),
        ("compare", {"seed": 5}, "sets config.seed itself"),
        ("ablate", {"method": "smem"}, "sets config.method itself"),
        ("backbones", {"backbone": "caser"}, "sets config.backbone itself"),
        ("analyse", {"study.only": ("pad",)}, "needs all of its rows"),
    ],
)
def test_what_a_study_would_ignore_is_refused(world, tmp_path, job, fields, message):
    with pytest.raises(UserError, match=message):
        run(world(job, **fields), tmp_path / "nothing", command)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("seeds", [(0, 0), ()])
def test_seeds_of_a_study_are_different_whole_numbers(make_config, seeds):
    with pytest.raises(UserError, match=r"config\.study\.seeds must be"):
        make_config(**{"study.seeds": seeds})


def test_a_study_makes_the_text_table_before_it_trains(world, tmp_path, monkeypatch):
    """Every run sees it, SASRec's too, and nothing is trained when it cannot be made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pad_jax.text.encode.available", lambda: False)
    with pytest.raises(UserError, match="no torch"):
        run(world("compare", **{"text.table": ""}), tmp_path / "w", command)
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_a_study_that_was_killed_while_it_copied_goes_on(world, folder, monkeypatch):
    """Half a copy is replaced, and nothing of it counts before."""
    fields = {"study.only": ("gate shared",)}

    def kill(source, target):
        shutil.copytree(source, target)
        raise KeyboardInterrupt

    tools = SimpleNamespace(copy2=shutil.copy2, rmtree=shutil.rmtree, copytree=kill)
    monkeypatch.setattr("pad_jax.studies.study.shutil", tools)
    with pytest.raises(KeyboardInterrupt):
        run(world("ablate", **fields), folder, command)
    row = folder / "pad-sasrec-ce-best-s0,gate.kind=shared"
    assert (row / "pretrain" / "checkpoints.partial").exists()
    assert not (row / "pretrain" / "checkpoints").exists()
    monkeypatch.setattr("pad_jax.studies.study.shutil", shutil)
    run(world("ablate", **fields), folder, command)
    assert not (row / "pretrain" / "checkpoints.partial").exists()
    assert list(read_results(row)["phases"]) == ["pretrain", "align", "finetune"]

    for part in ("pretrain/metrics.jsonl", "align/checkpoints"):  # a part that was lost: nothing is copied
        path = folder / "pad-sasrec-ce-best-s0" / part
        path.rename(folder / "aside")
        with pytest.raises(UserError, match=f"{part}.* is missing; put it back"):
            run(world("ablate", **{"study.only": ("gate bucket",)}), folder, command)
        assert not (folder / "pad-sasrec-ce-best-s0,gate.kind=bucket" / "pretrain").exists()
        (folder / "aside").rename(path)


def test_a_row_needs_its_base(world, tmp_path):

    study = Study(world("ablate"), tmp_path, "", [PAD])
    row = Row("x", fields={"gate.kind": "shared"}, base=PAD, shares=("pretrain",))
    with pytest.raises(UserError, match="has not finished pretrain"):
        inherit(study.run(row, 0), study.run(PAD, 0), row.shares)


def test_another_configuration_does_not_stand_in_the_way(world, tmp_path):
    """Runs of a study that find their folder taken go beside it, and so does the report."""
    mine, other = world("ablate"), world("ablate", **{"train.weight_decay": 0.5})
    row = Row("pad")
    usual = Study(mine, tmp_path, "", [row])
    taken = usual.path(row, 0)
    taken.mkdir(parents=True)
    (taken / "results.json").write_text(json.dumps({"format": 1, "phases": {"pretrain": {}}}))
    identity = {"config": as_dict(row.config(mine, 0)), "dataset_sha256": "", "text_sha256": None}
    (taken / "config.json").write_text(json.dumps(identity))
    assert usual.path(row, 0) == taken
    beside = Study(other, tmp_path, "", [row])
    assert beside.path(row, 0).name.startswith(f"{taken.name}-")
    assert beside.name == f"{usual.name}-{digest(other, '')}"


@pytest.fixture
def two(dataset, text, tmp_path, monkeypatch, make_config):
    """A study over two tiny datasets, of config files beside it, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    more = replace(dataset, name="more", events=31 - dataset.events)  # other items, and batches of the same shapes
    for name, data in {"demo": dataset, "more": more}.items():
        put(READERS, name, Reader(lambda _, data=data: data, timed=False))
        write_table(tmp_path / f"{name}.safetensors", text[1:], data, {"encoder": "random"})
        lines = ["from pad_jax.config import config_dict", "", "", 'def get_config(job="all"):']
        lines += [f'    config = config_dict("{name}", job)', "    config.data.length = 8"]
        lines += [f'    config.text.table = "{name}.safetensors"', "    config.model.width = 998", "    return config"]
        Path(f"{name}.py").write_text("\n".join(lines) + "\n")

    def config(job="compare", **fields):
        fields = {"study.datasets": ("demo.py", "more.py"), "study.seeds": (0,), "job": job} | fields
        return make_config("best", **EPOCHS | fields)

    return config


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("PAD_JAX_LONG"), reason="takes minutes: set PAD_JAX_LONG=1")
def test_a_study_over_two_datasets(two, capsys):
    """Its runs are those that each dataset would have alone, its page has a judgement and the page of each; stopped by
    its hours it reports what is whole, and goes on."""
    only = {"study.only": ("pad without MMD",)}
    run(two(**only), None, command)
    out = capsys.readouterr().out
    assert "4 of 4 runs are to be made" in out
    assert out.index("unknown") < out.index("pretrain epoch")
    places = [f"seed 0: runs/{d}/pad-sasrec-ce-best-s0{x}\n" for d in ("demo", "more") for x in ("", ",mmd.weight=0.0")]
    assert [out.count(place) for place in places] == [1] * 4
    name = "compare-demo+more-sasrec-ce-best-s0-part"
    markdown = Path(f"runs/{name}.md").read_text()
    headings = [line for line in markdown.splitlines() if line.startswith("## ")]
    assert headings[:2] == ["## Judgement", "## 1. Does alignment help?"]
    assert headings[4:] == ["## Group regret", "## All methods on demo, loss ce", "## All methods on more, loss ce"]
    assert "there is one seed" in markdown
    assert "docs/protocol.md#choices" in markdown
    results = {d: read_results(Path("runs") / d / "pad-sasrec-ce-best-s0") for d in ("demo", "more")}
    for d, found in results.items():
        assert f"| **pad** | {100 * found['test']['HR@10']:.2f} | {100 * found['test']['nDCG@10']:.2f} |" in markdown
        ranks = read_ranks(Path("runs") / d / "pad-sasrec-ce-best-s0")["test/finetune"]
        without = read_ranks(Path("runs") / d / "pad-sasrec-ce-best-s0,mmd.weight=0.0")["test/finetune"]
        minus = 100 * (ndcg(ranks, 10) - ndcg(without, 10)).mean()
        assert f"| {d} | pad above pad without MMD | all ({len(ranks)}) | {minus:+.2f} [" in markdown
    assert {line.rpartition("(")[2] for line in markdown.splitlines() if line.startswith("![")} == {
        f"{path.name})" for path in Path("runs").glob(f"{name}-*.svg")
    }
    alone = two(**only | {"study.datasets": (), "text.table": "demo.safetensors"})
    run(alone, None, command)
    assert "runs are to be made" not in capsys.readouterr().out
    assert read_results(Path("runs/demo/pad-sasrec-ce-best-s0")) == results["demo"]

    seeds = {"study.seeds": (0, 1), "study.hours": 1e-9}
    run(two(**only | seeds), None, command)
    out = capsys.readouterr().out
    assert "4 of 8 runs are to be made" in out
    assert "stopped before pad, seed 1, on demo: it takes about 0." in out
    markdown = Path(f"runs/{name}.md").read_text()
    assert "is of seed 0 alone. Not finished: demo, seed 1: every row. more, seed 1: every row." in markdown
    assert not list(Path("runs").glob("*/*-s1*"))
    run(two(**{"study.only": ("sasrec", "pad"), "study.hours": 1e-9}), None, command)
    markdown = Path(f"runs/{name}.md").read_text()
    assert "Not finished: demo, seed 0: sasrec. more, seed 0: sasrec." in markdown
    assert "| **pad** |" in markdown
    assert "| sasrec |" not in markdown
    run(two("ablate", **{"study.only": ("gate shared",), "study.hours": 1e-9, "study.seeds": (5,)}), None, command)
    assert "no report yet: no seed is finished" in capsys.readouterr().out


def test_a_study_takes_only_the_data_of_a_file(two):
    """`model.width` of the files is not that of the study; `data.length` and `text.table` are."""
    config = two(**{"data.length": 20})
    found = study.with_data(config, cli.configuration(config.recipe, "more.py"))
    assert (found.dataset, found.data.length, found.text.table) == ("more", 8, "more.safetensors")
    names = {n for n, v in dotted(as_dict(found)).items() if v != dotted(as_dict(config))[n]}
    assert names == {"dataset", "data.length", "text.table"}


@pytest.mark.parametrize(
    ("job", "fields", "given", "message"),
    [
        ("backbones", {}, (), "the job backbones works on one dataset"),
        ("analyse", {}, (), "the job analyse works on one dataset"),
        ("compare", {"study.datasets": ("demo.py", "demo")}, (), "has a dataset twice: demo, demo"),
        (
            "compare",
            {"study.datasets": ("nowhere.py",)},
            (),
            r"config\.study\.datasets: --config=nowhere\.py: there is no",
        ),
        ("compare", {}, ("study.seeds", "data.keep"), r"config\.data\.keep is that of each file"),
    ],
)
def test_datasets_that_a_study_cannot_take(two, job, fields, given, message):
    with pytest.raises(UserError, match=message):
        run(two(job, **fields), None, command, given)
    assert not Path("runs").exists()


def test_a_row_is_trained_behind_the_one_that_it_copies(world, tmp_path, monkeypatch):
    """Whatever their order on the page, and seed by seed over all datasets."""
    smem, pad = Row("smem", "smem", base=PAD, shares=("pretrain",)), PAD
    studies = [Study(world("compare", **{"study.seeds": (0, 1)}), tmp_path / d, "", [smem, pad]) for d in "xy"]
    done = []
    monkeypatch.setattr(Study, "make_text", lambda self: None)
    monkeypatch.setattr(Study, "train", lambda self, row, seed: done.append((seed, self.workdir.name, row.name)))
    assert study.train(studies)
    assert done == [(seed, d, name) for seed in (0, 1) for d in "xy" for name in ("pad", "smem")]
