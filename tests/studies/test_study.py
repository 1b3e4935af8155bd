"""Studies from end to end at toy size, in one folder: what one has run, the others use."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.run import run
from pad_jax.settings import as_dict
from pad_jax.studies import study
from pad_jax.studies.ablate import PAD
from pad_jax.studies.study import Row, Study, inherit
from pad_jax.workdir.identity import digest
from pad_jax.workdir.results import read_ranks, read_results

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
    assert len(held) in (0, 3)  # before each row, and before the report
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
def test_analyse(world, folder):
    run(world("analyse"), folder, command)
    markdown = page_of(folder, "analyse", "s0")
    assert "nan" not in markdown
    three = next(line for line in markdown.splitlines() if line.startswith("| c. three, ID expert |"))
    assert three.endswith(" - |")  # no item is in the last bucket
    assert " 1.00 " not in three  # phase 3 moves it
    for name in ("frequency", "kendall", "distances-cold", "distances-warm", "gate"):
        assert (folder / f"analyse-sasrec-ce-best-s0-{name}.svg").exists()


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
