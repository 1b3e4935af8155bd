"""How long runs take, by those that are finished."""

import json

from pad_jax.settings import as_dict
from pad_jax.studies.ablate import PAD
from pad_jax.studies.plan import Guess, guess, known_in
from pad_jax.studies.study import Row, Study, to_be_made

PHASES = {"pretrain": 60.0, "align": 120.0, "finetune": 300.0}


def write_run(path, config, dataset_sha256="a", **seconds):
    """A workdir as old versions wrote it, without a seal."""
    path.mkdir(parents=True)
    lacking = {n: getattr(config, n) for n in ("dataset", "method", "backbone", "loss", "recipe", "seed")}
    lacking |= {"text_encoder": None, "baselines": {}, "format": 1}
    phases = {name: {"seconds": s} for name, s in seconds.items()}
    (path / "results.json").write_text(json.dumps(lacking | {"phases": phases}))
    identity = {"config": as_dict(config), "dataset_sha256": dataset_sha256, "text_sha256": None}
    (path / "config.json").write_text(json.dumps(identity))


def test_a_run_takes_as_long_as_those_that_are_most_like_it(make_config, tmp_path):
    """The same row under other seeds, else the method in the same folder, else anywhere; else nobody knows."""
    here, there = tmp_path / "here", tmp_path / "there"
    config = make_config("best")
    known = known_in([here, there])
    assert str(guess(config, list(PHASES), here, "a", known)) == "unknown"
    write_run(there / "other", make_config("best", method="smem"), **PHASES)
    write_run(there / "x", make_config("best", seed=7), **PHASES)
    found = [guess(config, list(PHASES), here, "a", known_in([here, there]))]
    write_run(here / "y", make_config("best", **{"mmd.kernel": "linear"}), **PHASES | {"align": 720.0})
    found.append(guess(config, list(PHASES), here, "a", known_in([here, there])))
    for seed in (1, 2):
        write_run(here / f"z{seed}", make_config("best", seed=seed), **PHASES | {"align": 60.0 * seed})
    write_run(here / "part", make_config("best", seed=3), pretrain=6000.0)
    write_run(here / "data", make_config("best", seed=3), "b", **PHASES | {"align": 6000.0})
    (here / "damaged").mkdir()
    (here / "damaged" / "results.json").write_text("{")
    found.append(guess(config, list(PHASES), here, "a", known_in([here, there])))
    found.append(guess(config, ["align", "finetune"], here, "a", known_in([here, there])))
    assert found == [Guess(8.0, False), Guess(18.0, False), Guess(7.5, True), Guess(6.5, True)]
    assert [str(g) for g in found] == ["~8.0", "~18", "7.5", "6.5"]


def test_what_is_to_be_made_is_said_by_row_and_dataset(make_config, tmp_path):
    """A row does not take the time of phases that it copies; unknown ones are counted by themselves."""
    variant = Row("no kernel", fields={"mmd.weight": 0.0}, base=PAD, shares=("pretrain",))
    config = make_config("best")
    studies = [Study(config, tmp_path / name, "", [PAD, variant, Row("ids", "sasrec")], "a") for name in ("x", "y")]
    write_run(tmp_path / "x" / "pad-sasrec-ce-best-s0", config, **PHASES)
    known = known_in(study.workdir for study in studies)
    runs = [(study, row, seed) for study in studies for row in study.rows for seed in (0, 1)]
    left = [run for run in runs if not run[0].is_done(*run[1:])]
    assert len(left) == 11
    lines = [" ".join(line.split()) for line in to_be_made(studies, left, 12, known).splitlines()]
    assert lines[0].startswith("11 of 12 runs are to be made")
    assert lines[2:] == [
        "pad 1 x 8.0 2 x ~8.0",
        "no kernel 2 x ~7.0 2 x ~7.0",
        "ids 2 x unknown 2 x unknown",
        "in all: 0.9 hours, and 4 runs of unknown length",  # 3 x 8 + 4 x 7 = 52 minutes
    ]
