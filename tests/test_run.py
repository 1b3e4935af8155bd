"""Jobs from end to end on a small dataset: results, resume, refusals."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from pad_jax import sealed
from pad_jax.errors import UserError
from pad_jax.evaluation.baselines import BASELINES
from pad_jax.evaluation.popularity import GRID
from pad_jax.pipeline import Run
from pad_jax.report.__main__ import report
from pad_jax.report.groups import RunGroup
from pad_jax.run import main, run
from pad_jax.training import loop
from pad_jax.workdir.identity import read_config
from pad_jax.workdir.results import read_ranks, read_results, write_ranks, write_results
from tests.support.data import ROOT, SMALL, tiny_dataset, write_table
from tests.support.registries import as_demo

EPOCHS = {"pretrain.epochs": 2, "align.epochs": 2, "finetune.epochs": 2}
THREE = {"align.epochs": 3}  # of the runs that several tests share
SHARED = pytest.mark.xdist_group("runs")  # one worker, where the shared runs are


@pytest.fixture
def world(world):
    """Runs of two epochs a phase."""
    return world | EPOCHS


@pytest.fixture(scope="module")
def finished():
    """Workdirs by their configuration and the jobs that were done there."""
    return {}


@pytest.fixture
def workdir_of(tmp_path, tmp_path_factory, finished):
    """A workdir of its own, `name`, in which the jobs of a configuration were done; the same jobs are done once."""

    def of(config, jobs):
        key = (config.method, tuple(jobs))
        if key not in finished:
            folder = tmp_path_factory.mktemp("finished") / "w"
            if jobs[:-1]:
                shutil.copytree(of(config, jobs[:-1]), folder)
            run(replace(config, job=jobs[-1]), folder)
            finished[key] = folder
        return finished[key]

    return lambda name, config, *jobs: shutil.copytree(of(config, jobs), tmp_path / name)


def parameters(workdir, phase):
    from pad_jax.training.checkpoint import Checkpoints

    with Checkpoints(Path(workdir) / phase / "checkpoints") as checkpoints:
        return checkpoints.parameters(checkpoints.latest())


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


@pytest.mark.slow
def test_all_phases_and_results(world, make_config, tmp_path, capsys):
    config = make_config("best", **world)
    results = run(config, tmp_path / "w")
    on_disk = json.loads((tmp_path / "w" / "results.json").read_text())
    assert len(on_disk.pop("sha256")) == 64
    assert on_disk == json.loads(json.dumps(results))
    assert list(on_disk["phases"]) == ["pretrain", "align", "finetune"]
    assert on_disk["format"] == 2
    assert on_disk["text_encoder"] == {"encoder": "random"}
    for name, phase in on_disk["phases"].items():
        told = {"epochs", "best_epoch", "updates", "seconds", "stopped", "parameters", "log", "popularity"}
        told |= {"gradient_norms"} if name == "align" else set()
        assert set(phase) == {"valid", "test"} | told
        assert phase["popularity"] == {"asked": 0.0, "beta": 0.0}
        assert phase["stopped"] == "epochs"
    assert on_disk["test"] == on_disk["phases"]["finetune"]["test"]
    assert set(on_disk["baselines"]) == set(BASELINES)
    for metrics in (on_disk["test"], on_disk["valid"], on_disk["baselines"]["counts"]["test"]):
        assert {"HR@10", "nDCG@10", "HR@1", "MRR", "users", "by_frequency", "by_bucket", "by_history"} <= set(metrics)
        assert set(metrics["by_frequency"]) == {"warm", "median", "cold", "unseen"}
        assert sum(m["users"] for m in metrics["by_history"].values()) == 37
        assert len(metrics["by_bucket"]) == 10
        assert sum(m["users"] for m in metrics["by_bucket"]) == metrics["users"] == 37
        assert 0 <= metrics["HR@10"] <= 1
        assert len(metrics["by_popularity"]) == len(GRID)
        (point,) = [p for p in metrics["by_popularity"] if p["beta"] == 0]
        assert [point[name] for name in ("HR@10", "nDCG@10")] == [metrics[name] for name in ("HR@10", "nDCG@10")]
    ranks = read_ranks(tmp_path / "w")
    names = (*on_disk["phases"], *on_disk["baselines"], "target_count", "items_met")
    assert set(ranks) == {f"{s}/{n}" for s in ("valid", "test") for n in names}
    assert np.mean(ranks["test/finetune"] <= 10) == pytest.approx(on_disk["test"]["HR@10"])
    for phase in on_disk["phases"]:
        lines = [json.loads(x) for x in (tmp_path / "w" / phase / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]
        assert (tmp_path / "w" / phase / "config.json").exists()
    out = capsys.readouterr().out
    assert "needed" in out
    assert "sasrec, IDs only (pad's phase 1)" in out
    assert "| counts + whitened |" in (tmp_path / "w" / "results.md").read_text()

    markdown = report([tmp_path / "w"], [tmp_path / "w"])
    assert f"{100 * on_disk['test']['HR@10']:.2f} / {100 * on_disk['test']['nDCG@10']:.2f}" in markdown
    assert "| all (37) | +0.00 [+0.00, +0.00] | +0.00 [+0.00, +0.00] |" in markdown

    # again: nothing is trained twice, and evaluate finds the same numbers in the checkpoints
    assert run(config, tmp_path / "w")["phases"] == results["phases"]
    again = run(replace(config, job="evaluate"), tmp_path / "w")
    for phase in results["phases"]:
        assert again["phases"][phase]["test"]["HR@10"] == results["phases"][phase]["test"]["HR@10"]
        assert again["phases"][phase]["test"]["MRR"] == pytest.approx(results["phases"][phase]["test"]["MRR"], rel=1e-5)
    assert again["baselines"] == results["baselines"]


@SHARED
@pytest.mark.slow
@pytest.mark.parametrize(("job", "tables"), [("pretrain", "lazy"), ("align", "dense")])
def test_resume_equals_uninterrupted(world, make_config, workdir_of, tmp_path, monkeypatch, job, tables):
    """Killed after its first epoch and started again, a phase ends bit for bit where it would have ended."""
    if job == "align":
        config = make_config("paper", **world | THREE)
        workdir_of("killed", config, "pretrain")
        workdir_of("whole", config, "pretrain", "align")
    else:
        config = make_config("paper", **world | {f"{job}.epochs": 3, "optimizer.tables": tables})
        run(replace(config, job=job), tmp_path / "whole")

    class KilledError(Exception):
        pass

    real = loop._stop

    def kill(config, phase, status):
        if status["epoch"] == 1 and phase.name == job:
            raise KilledError
        return real(config, phase, status)

    monkeypatch.setattr(loop, "_stop", kill)
    with pytest.raises(KilledError):
        run(replace(config, job=job), tmp_path / "killed")
    _wait_for_checkpoint(tmp_path / "killed" / job / "checkpoints" / "1")
    monkeypatch.setattr(loop, "_stop", real)
    with open(tmp_path / "killed" / job / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"epoch": 2, "left": "by the kill"}) + "\n")
    run(replace(config, job=job), tmp_path / "killed")
    assert same(parameters(tmp_path / "whole", job), parameters(tmp_path / "killed", job))
    lines = [json.loads(x) for x in (tmp_path / "killed" / job / "metrics.jsonl").read_text().splitlines()]
    whole = [json.loads(x) for x in (tmp_path / "whole" / job / "metrics.jsonl").read_text().splitlines()]
    assert [x["epoch"] for x in lines] == [1, 2, 3]
    assert [x["loss"] for x in lines] == [x["loss"] for x in whole]
    assert [x["valid"] for x in lines] == [x["valid"] for x in whole]


def _wait_for_checkpoint(path, seconds=20):
    import time

    for _ in range(10 * seconds):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(path)


@SHARED
@pytest.mark.slow
def test_align_leaves_the_pre_trained_expert_bitwise_unchanged(world, make_config, workdir_of, tmp_path):
    workdir_of("w", make_config("paper", **world | THREE), "pretrain", "align")
    results = json.loads((tmp_path / "w" / "results.json").read_text())
    best = results["phases"]["pretrain"]["best_epoch"]
    from pad_jax.training.checkpoint import Checkpoints

    with Checkpoints(tmp_path / "w" / "pretrain" / "checkpoints") as checkpoints:
        pretrained, _ = checkpoints.parameters(best)
    trained, frozen = parameters(tmp_path / "w", "align")
    assert same(frozen, pretrained)
    assert not np.array_equal(trained["tables"]["aligned"], pretrained["tables"]["id"])


@pytest.mark.slow
def test_a_phase_without_the_one_before_names_the_command(world, tmp_path, capsys):
    """And the command does it: the same settings, the same workdir."""
    fields = SMALL | world
    settings = [f"--config.{name}={value}" for name, value in fields.items()]
    config = ROOT / "configs" / "demo.py"
    assert main(["main.py", f"--config={config}:align", f"--workdir={tmp_path}/a w", *settings]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not (tmp_path / "a w").exists()
    command = shlex.split(error.split("make it with: ")[1])
    assert command[:3] == ["python", "main.py", f"--config={config}:pretrain"]
    assert main(command[1:]) == 0
    assert main(["main.py", f"--config={config}:align", f"--workdir={tmp_path}/a w", *settings]) == 0


@pytest.mark.parametrize(
    ("limits", "stopped", "epochs"),
    [
        ({"train.patience": 2, "pretrain.epochs": 9, "pretrain.learning_rate": 1e-12}, "patience", 3),
        ({"pretrain.minutes": 1e-6, "pretrain.epochs": 9}, "minutes", 1),
    ],
)
@pytest.mark.slow
def test_why_a_phase_stops(world, make_config, tmp_path, limits, stopped, epochs):
    config = make_config("paper", method="sasrec", **world | {"align.epochs": 1, "finetune.epochs": 1} | limits)
    phase = run(config, tmp_path / "w")["phases"]["pretrain"]
    assert (phase["stopped"], phase["epochs"], phase["best_epoch"]) == (stopped, epochs, 1)


@SHARED
@pytest.mark.slow
def test_a_workdir_of_another_text_table_is_refused(world, make_config, workdir_of, dataset, text, tmp_path):
    world = world | THREE
    workdir_of("w", make_config("paper", **world), "pretrain")
    write_table(tmp_path / "other.safetensors", 2 * text[1:], dataset, {"encoder": "other"})
    fields = world | {"text.table": str(tmp_path / "other.safetensors")}
    with pytest.raises(UserError, match="another text table"):
        run(make_config("paper", job="align", **fields), tmp_path / "w")


@pytest.mark.slow
def test_sasrec_needs_neither_torch_nor_text(world, make_config, tmp_path, monkeypatch, capsys):
    from pad_jax.text import encode

    monkeypatch.setattr(encode, "available", lambda: False)
    del world["text.table"]
    results = run(make_config("paper", method="sasrec", job="pretrain", **world), tmp_path / "w")
    assert results["baselines"]["text_cosine"] is None
    assert results["baselines"]["counts_whitened"] is None
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("text cosine"))
    assert line.split()[-5:] == ["-"] * 5
    with pytest.raises(UserError, match="no torch to make one"):
        run(make_config("paper", **world), tmp_path / "pad")


@pytest.mark.slow
@SHARED
def test_a_workdir_of_another_configuration_is_refused(world, make_config, workdir_of, tmp_path):
    workdir_of("w", make_config("paper", method="sasrec", **world), "pretrain")
    before = (tmp_path / "w" / "results.json").read_bytes()
    with pytest.raises(UserError, match=r"another configuration: .*seed \(0 there, 1 here\)"):
        run(make_config("paper", method="sasrec", job="pretrain", seed=1, **world), tmp_path / "w")
    assert (tmp_path / "w" / "results.json").read_bytes() == before


def test_a_workdir_in_use_is_refused(world, make_config, tmp_path):
    (tmp_path / "w").mkdir()
    lock = str(tmp_path / "w" / ".lock")
    code = f"import filelock; lock = filelock.FileLock({lock!r}); lock.acquire(); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="in use by another run"):
            run(make_config("paper", method="sasrec", **world), tmp_path / "w")
        holder.communicate("\n")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(world, make_config, tmp_path, monkeypatch):
    real, bad = loop._mean, iter([{}, {"loss": float("nan")}])  # an epoch of the tiny dataset is one block
    monkeypatch.setattr(loop, "_mean", lambda sums: real(sums) | next(bad))
    config = make_config("paper", method="sasrec", **world | {"pretrain.epochs": 9})
    with pytest.raises(UserError, match=r"not finite in epoch 2; the checkpoint of epoch 1 is kept; lower") as error:
        run(config, tmp_path / "w")
    assert "\n" not in str(error.value)
    assert [p.name for p in (tmp_path / "w" / "pretrain" / "checkpoints").glob("[0-9]*")] == ["1"]
    assert len((tmp_path / "w" / "pretrain" / "metrics.jsonl").read_text().splitlines()) == 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(parameters(tmp_path / "w", "pretrain")))


@pytest.mark.slow
def test_parameters_that_are_not_finite_stop_the_run(world, make_config, tmp_path):
    """A rate that is too high: nothing is kept, and a lower one may use the workdir."""
    config = make_config("paper", method="sasrec", **world | {"pretrain.learning_rate": 1e30})
    with pytest.raises(UserError, match=r"not finite in epoch 1; there is no checkpoint yet; lower config.pretrain"):
        run(config, tmp_path / "w")
    assert not list((tmp_path / "w" / "pretrain" / "checkpoints").glob("[0-9]*"))
    run(make_config("paper", method="sasrec", **world), tmp_path / "w")


@pytest.mark.slow
def test_a_run_that_cannot_fit_is_refused(world, make_config, tmp_path, monkeypatch):
    from pad_jax import parallel

    with monkeypatch.context() as patch:
        patch.setattr(parallel.psutil, "virtual_memory", lambda: type("M", (), {"available": 1000, "total": 1000})())
        with pytest.raises(UserError, match=r"need .* of memory and .* are at hand"):
            run(make_config("paper", method="sasrec", **world), tmp_path / "w")
    run(make_config("paper", method="sasrec", **world | {"model.dropout": 0.2}), tmp_path / "w")  # the cure may differ


@pytest.mark.slow
@SHARED
def test_a_report_groups_and_compares_what_belongs_together(world, make_config, workdir_of, tmp_path):
    def config(**fields):
        return make_config("paper", method="sasrec", job="pretrain", **world | fields)

    def pretend(name, **fields):
        """The results of `a` as those of a run with other fields."""
        run_of = Run(config(**fields), tmp_path / name, str)
        workdir = run_of.workdir
        workdir.write_config("pretrain")
        write_ranks(tmp_path / name, read_ranks(tmp_path / "a"), workdir.of)
        write_results(tmp_path / name, read_results(tmp_path / "a") | {"seed": run_of.config.seed}, workdir.of)

    workdir_of("a", config(), "pretrain")
    pretend("b", seed=1)
    pretend("wider", **{"model.width": 32})
    as_demo(tiny_dataset(users=41))
    pretend("other", seed=2)
    assert "2 seeds |" in report([tmp_path / "a", tmp_path / "b"], [])
    with pytest.raises(UserError, match="differ by more than their seed"):
        report([tmp_path / "a", tmp_path / "wider"], [])
    with pytest.raises(UserError, match="a seed appears twice"):
        report([tmp_path / "a", tmp_path / "a"], [])
    with pytest.raises(UserError, match="different data"):
        report([tmp_path / "a"], [tmp_path / "other"])
    assert "+0.00" in report([tmp_path / "a"], [tmp_path / "a"])
    log = tmp_path / "a" / "pretrain" / "metrics.jsonl"
    lines = [json.dumps({"seconds": end}) for end in (9, 19, 919, 929)]
    log.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(UserError, match=r"metrics\.jsonl is not the log of the 2 epochs of its phase"):
        _ = RunGroup([tmp_path / "a"]).seconds_per_epoch
    of_a, results = read_config(tmp_path / "a")["of"], read_results(tmp_path / "a")
    results["phases"]["pretrain"] |= {"epochs": 4, "log": sealed.digest(lines)}
    write_results(tmp_path / "a", results, of_a)
    assert RunGroup([tmp_path / "a"]).seconds_per_epoch == 10  # the pause in epoch 3 is not counted
    log.unlink()
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read \(No such file"):
        _ = RunGroup([tmp_path / "a"]).seconds_per_epoch


@pytest.mark.parametrize("content", ["{", "{}", '{"format": 2}', "[]"])
def test_damaged_results_are_one_line(world, make_config, tmp_path, content):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results.json"):
        run(make_config("paper", method="sasrec", **world), tmp_path / "w")


@SHARED
@pytest.mark.slow
def test_a_damaged_checkpoint_is_one_line(world, make_config, workdir_of, tmp_path):
    config = make_config("paper", method="sasrec", **world)
    workdir_of("w", config, "pretrain")
    for path in (tmp_path / "w" / "pretrain" / "checkpoints").glob("*/state/**/*"):
        if path.is_file():
            path.write_bytes(b"junk")
    with pytest.raises(UserError, match="use a new --workdir") as error:
        run(replace(config, job="evaluate"), tmp_path / "w")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_two_processes_train_as_one(world, make_config, tmp_path):
    """The same phases under jax.distributed: two processes with two devices each, and one process with four."""
    port = 20000 + os.getpid() % 20000
    script = ROOT / "tests" / "support" / "two_processes.py"
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=2")
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    environment["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def start(process):
        arguments = [sys.executable, script, world["text.table"], tmp_path / "two", str(port), str(process)]
        return subprocess.Popen(
            arguments, env=environment, cwd=tmp_path, stdout=-1, stderr=subprocess.STDOUT, text=True
        )

    pair = [start(process) for process in (0, 1)]
    outputs = [process.communicate(timeout=500)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    for job in ("pretrain", "align"):
        run(make_config(**world | {"pretrain.epochs": 1, "align.epochs": 1, "job": job}), tmp_path / "one")
    assert "results:" in outputs[0]
    assert outputs[1].count("results:") == 0
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    for phase in ("pretrain", "align"):
        first, second = (parameters(tmp_path / name, phase) for name in ("one", "two"))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
        np.testing.assert_allclose(*(r["phases"][phase]["test"]["MRR"] for r in results), rtol=1e-3)


def test_without_config_and_method_it_is_the_demo(monkeypatch, capsys):
    """Both methods, one after the other; whoever names one, or a file, has it alone."""
    import pad_jax.run as module

    ran = []
    monkeypatch.setattr(module, "train", lambda job, beside=(): ran.append((job.config.method, len(beside))) or {})
    for flags in ([], ["--config.seed=1"], ["--config=demo"], ["--config.method=sasrec"], ["--workdir=w"]):
        ran.clear()
        assert main(["main.py", *flags]) == 0
        alone = [("sasrec" if "--config.method=sasrec" in flags else "pad", 0)]
        demo = not flags or flags == ["--config.seed=1"]
        assert ran == ([("pad", 0), ("blend", 1)] if demo else alone), flags


def test_interrupt_is_not_a_traceback(monkeypatch, capsys):
    import pad_jax.run as module

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run", interrupt)
    assert main(["main.py", "--config=demo"]) == 130
    assert capsys.readouterr().err.startswith("interrupted")


@pytest.mark.slow
def test_a_phase_that_trains_no_recommender_is_judged_by_its_loss(world, make_config, tmp_path, monkeypatch):
    """Validation says epoch 1 throughout; stage 1 of CTRL keeps the epoch of least loss, above 1 and not the last."""
    real, values, losses = Run.metrics, iter(np.linspace(0.9, 0.1, 40)), iter([5.0, 3.0, 4.0, 6.0])
    monkeypatch.setattr(Run, "metrics", lambda *a: real(*a) | {"HR@10": float(next(values))})
    monkeypatch.setattr(loop, "_mean", lambda _: {"loss": next(losses)})
    fields = {"method": "ctrl", "align.epochs": 4, "job": "align"}
    results = run(make_config("paper", **world | fields), tmp_path / "w")
    assert results["phases"]["align"]["best_epoch"] == 2
    assert (tmp_path / "w" / "align" / "checkpoints" / "2").exists()
