"""The job `refit`: on every event, for the epochs that validation chose."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

import pad_jax
from pad_jax.data.dataset import from_sequences
from pad_jax.errors import UserError
from pad_jax.pipeline import Run
from pad_jax.report.__main__ import report
from pad_jax.run import run
from pad_jax.settings import with_fields
from pad_jax.training import loop
from pad_jax.training.checkpoint import Checkpoints
from pad_jax.workdir.identity import read_config
from tests.support.data import small_config, write_table
from tests.support.registries import as_demo


def parts_of(workdir, phase):
    """What the latest checkpoint of a phase has trained and kept."""
    with Checkpoints(workdir / phase / "checkpoints") as checkpoints:
        return checkpoints.parameters(checkpoints.latest())


def check_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def with_two_more(dataset):
    """Leave-one-out of these users trains on all that they have in `dataset`."""
    sequences = [np.append(part, [1, 2]) for part in np.split(dataset.events, dataset.starts[1:-1])]
    return from_sequences(dataset.name, dataset.item_ids, dataset.titles, dataset.user_ids, sequences)


def by_hand(config, dataset, results, workdir):
    """A run whose training prefixes are all events of `dataset`, for the best epochs of other results."""
    as_demo(with_two_more(dataset))
    budgets = {f"{name}.epochs": phase["best_epoch"] for name, phase in results["phases"].items()}
    run(with_fields(config, budgets | {"train.patience": 99}), workdir)
    as_demo(dataset)
    return workdir


@pytest.mark.slow
def test_it_is_a_run_on_all_events_for_the_best_epochs(world, dataset, tmp_path, capsys):
    fields = {"method": "sasrec", "pretrain.epochs": 4, "train.patience": 2, "pretrain.learning_rate": 0.03}
    config = small_config("best", **world | fields)
    results = run(config, tmp_path / "w")
    best = results["phases"]["pretrain"]["best_epoch"]
    assert best < results["phases"]["pretrain"]["epochs"]  # or the test says little
    found = run(replace(config, job="refit"), tmp_path / "w")
    assert "every event trained (epochs: pretrain " in capsys.readouterr().out
    check_same(
        parts_of(tmp_path / "w" / "refit", "pretrain"),
        parts_of(by_hand(config, dataset, results, tmp_path / "h"), "pretrain"),
    )
    assert found == json.loads(json.dumps(found)) | {"holdout": False, "baselines": {}}
    assert not {"valid", "test"} & (set(found) | set(found["phases"]["pretrain"]))
    assert found["phases"]["pretrain"]["epochs"] == best
    model = pad_jax.load(tmp_path / "w" / "refit")
    assert model.artifact.counts.sum() == len(dataset.events)
    run(replace(config, job="recommend"), tmp_path / "w" / "refit")
    assert (tmp_path / "w" / "refit" / "recommendations.parquet").exists()

    # again: nothing is trained twice; damaged results are made again; there is nothing to report
    assert run(replace(config, job="refit"), tmp_path / "w")["phases"] == found["phases"]
    (tmp_path / "w" / "refit" / "results.json").write_text("{}")
    assert run(replace(config, job="evaluate"), tmp_path / "w" / "refit")["phases"] == found["phases"]
    with pytest.raises(UserError, match=r"was trained on every event .*nothing to report"):
        report([tmp_path / "w" / "refit"], [])
    with pytest.raises(UserError, match="refit the run that chose its epochs"):
        run(replace(config, job="refit"), tmp_path / "w" / "refit")

    # a damaged config.json of the run is not taken from the refit, which is another run
    (tmp_path / "w" / "config.json").write_text("{}")
    assert read_config(tmp_path / "w")["config"]["data.holdout"] is True
    shutil.rmtree(tmp_path / "w" / "pretrain")
    (tmp_path / "w" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(tmp_path / "w")


@pytest.mark.slow
def test_phases_start_from_each_other(train, dataset, tmp_path):
    config, workdir = train("staged")
    results = run(config, workdir)
    run(replace(config, job="refit"), workdir)
    hand = by_hand(config, dataset, results, tmp_path / "hand")
    for phase in results["phases"]:
        check_same(parts_of(workdir / "refit", phase), parts_of(hand, phase))


@pytest.mark.slow
def test_what_learns_from_validation_events_stays(world, dataset, text, tmp_path, capsys):
    """Blend's shares; its learned expert is trained on all events."""
    titled = replace(dataset, titles=[f"thing {i % 7} of {i % 5}" for i in range(30)])
    as_demo(titled)
    write_table(tmp_path / "titled.safetensors", text[1:], titled, {"encoder": "random"})
    fields = {"text.table": str(tmp_path / "titled.safetensors"), "method": "blend", "blend.words": 24}
    config = small_config("best", **world | fields | {"finetune.epochs": 3})
    with pytest.raises(UserError, match="finetune of method blend learns from validation events"):
        run(with_fields(config, {"data.holdout": False}), tmp_path / "fresh")
    results = run(config, tmp_path / "w")
    capsys.readouterr()
    found = run(replace(config, job="refit"), tmp_path / "w")
    said = capsys.readouterr().out
    assert f"finetune: learns from validation events, which all train here; it stays what {tmp_path}/w has" in said
    assert (found["phases"]["finetune"]["epochs"], found["phases"]["finetune"]["stopped"]) == (0, "held out")
    base = Run(config, tmp_path / "w", str)
    learned = base.checkpoint(base.method.phases[1])
    shares, kept = parts_of(tmp_path / "w" / "refit", "finetune")
    check_same(shares, learned[0])
    hand = by_hand(config, titled, results, tmp_path / "hand")
    check_same(kept, parts_of(hand, "finetune")[1])
    assert not np.array_equal(kept["tables"]["learned"], learned[1]["tables"]["learned"])

    # without the job: warm, on every event, with the shares of the earlier run
    warm = with_fields(config, {"data.holdout": False, "start": str(tmp_path / "w"), "eval.serve": "finetune"})
    run(warm, tmp_path / "warm")
    check_same(parts_of(tmp_path / "warm", "finetune")[0]["gate"]["shares"], _served(tmp_path / "w")["gate"]["shares"])


def _served(workdir):
    return pad_jax.load(workdir).artifact.params


@pytest.mark.slow
def test_a_killed_refit_goes_on(world, tmp_path, monkeypatch):
    config = small_config("best", **world | {"method": "sasrec", "pretrain.epochs": 3, "train.patience": 9})
    run(config, tmp_path / "w")
    results = json.loads((tmp_path / "w" / "results.json").read_text())
    if results["phases"]["pretrain"]["best_epoch"] < 2:
        pytest.skip("nothing is left to go on with")
    shutil.copytree(tmp_path / "w", tmp_path / "v")
    run(replace(config, job="refit"), tmp_path / "v")

    class KilledError(Exception):
        pass

    real = loop._stop

    def kill(config, phase, status):
        if status["epoch"] == 1:
            raise KilledError
        return real(config, phase, status)

    monkeypatch.setattr(loop, "_stop", kill)
    with pytest.raises(KilledError):
        run(replace(config, job="refit"), tmp_path / "w")
    monkeypatch.setattr(loop, "_stop", real)
    run(replace(config, job="refit"), tmp_path / "w")
    check_same(*(parts_of(tmp_path / name / "refit", "pretrain") for name in "wv"))


@pytest.mark.slow
def test_a_run_that_is_not_finished_is_refused(world, tmp_path):
    config = small_config("best", **world | {"method": "staged"})
    run(replace(config, job="pretrain"), tmp_path / "w")
    with pytest.raises(UserError, match=r"w is not finished; finish it with: the job all"):
        run(replace(config, job="refit"), tmp_path / "w")
    assert not (tmp_path / "w" / "refit").exists()
    with pytest.raises(UserError, match="holds no finished phase"):
        run(replace(config, job="refit"), tmp_path / "x")


def test_without_a_holdout_every_event_trains(dataset):
    """And the data are others: results with a holdout and without are never of one workdir."""
    whole = dataset.without_holdout()
    windows, owner = whole.train_windows(50, every=True)
    found = [row[row > 0].tolist() for row in windows[np.argsort(owner)]]
    assert found == [part.tolist() for part in np.split(dataset.events, dataset.starts[1:-1])]
    assert whole.fingerprint != dataset.fingerprint
    assert whole.counts.sum() == len(dataset.events)
