"""The PyTorch peer of the benchmarks has the same losses and gradients: a second implementation, by other means."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the peer needs torch")

import benchmarks.problem as problem
from benchmarks.harness import in_turn, ratio
from tests.support.data import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["pretrain", "align", "finetune"])
def test_the_peer_has_the_same_loss_and_gradients(dataset, text, phase, make_config):
    config = make_config("paper", train__batch=4, model__text_layers=2)
    ours = problem.Ours(config, dataset, phase, text)
    found = problem.parity(ours, problem.Theirs(ours), users=16)
    assert found["loss_difference"] <= 1e-5
    assert found["gradient_difference"] <= 1e-4


@pytest.mark.slow
def test_the_peer_takes_steps(dataset, make_config):
    ours = problem.Ours(make_config("paper", train__batch=4), dataset, "pretrain", None)
    theirs = problem.Theirs(ours)
    before = theirs.peer.p["tables/id"].detach().clone()
    theirs.steps(2)
    assert (theirs.peer.p["tables/id"] != before).any()
    for row in range(len(theirs.windows)):
        met = set(ours.host.windows[row]) - {0}
        assert not met & set(problem.draw_negatives(theirs.gaps[[row]], 30, 200)[0].tolist())


@pytest.mark.slow
def test_a_difference_is_an_error(dataset, make_config):
    ours = problem.Ours(make_config("paper", train__batch=4), dataset, "pretrain", None)
    theirs = problem.Theirs(ours)
    name = "encoders/id/backbone/block_0_q/kernel"
    theirs.peer.p[name] = theirs.peer.p[name].detach().add(0.01).requires_grad_()
    with pytest.raises(AssertionError, match="ours and the peer differ"):
        problem.parity(ours, theirs, users=16)


def test_turns_and_ratios():
    order = []
    contenders = {name: (lambda n=name: order.append(n)) for name in ("ours", "peer")}
    seconds = in_turn(contenders, rounds=3, warm_up=1)
    assert order == ["ours", "peer"] * 4
    assert {name: len(values) for name, values in seconds.items()} == {"ours": 3, "peer": 3}
    assert ratio([2.0, 6.0, 4.0], [1.0, 2.0, 1.0]) == {"ratio": 3.0, "ratio_min": 2.0, "ratio_max": 4.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        ("mmd", "--rows", "1340", "--width", "16", "--rounds", "1"),
        ("ranking", "--users", "64", "--items", "50", "--rounds", "1"),
    ],
)
def test_programs_print_lines_and_a_table(program):
    name, *options = program
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    first, *lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert first["benchmark"] == name
    assert lines
    assert all(line["ratio"] > 0 for line in lines)
    assert "ratio_min" in done.stdout.splitlines()[len(lines) + 3]


def test_generated_data_has_the_size_it_says():
    data = problem.generated(events=9000, items=500)
    assert abs(len(data.events) - 9000) < 500
    assert data.items == 500
    assert data.events.min() >= 1
    assert data.events.max() <= 500
    assert np.diff(data.starts).min() >= 5
