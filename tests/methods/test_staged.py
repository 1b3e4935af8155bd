"""Experts trained one after the other."""

import jax
import numpy as np
import pytest

from tests.support.steps import leaves, names


def test_nothing_is_trained_twice(setup):
    """Phase 3 moves the text expert and the gate; the aligned expert began at a tenth of the pre-trained IDs."""
    s = setup("staged", "best")
    first, align, last = s.method.phases
    previous = s.previous(align)
    _, state = s.state(align, previous)
    np.testing.assert_allclose(state.params["tables"]["aligned"], 0.1 * previous["tables"]["id"], rtol=1e-6)
    assert {path.split("/")[0] for path in align.start} == {"tables", "encoders"}
    assert "encoders/aligned" not in align.start
    _, state = s.state(last, s.previous(last))
    assert {n.split("/")[1] for n in names(state.params) if n.startswith("encoders")} == {"text"}
    assert any(n.startswith("gate") for n in names(state.params))
    assert set(state.frozen["tables"]) == {"id", "aligned"}
    assert first.experts == ("id",)


@pytest.mark.slow
def test_the_fused_logit_moves_the_gate_alone(setup):
    """Each part of the loss reaches what it is of, and the gate has its own start and a rate of 0.03."""
    s = setup("staged", "best", **{"train.gate_rate": 7.0, "gate.start": (0.0, 0.0, 0.0)})
    phase = s.method.phases[2]
    optimizer, state = s.state(phase, s.previous(phase))
    batch, _ = s.batch()

    def part(params, name):
        merged = params | {p: params.get(p, {}) | v for p, v in state.frozen.items()}
        weight, mean = phase.loss(s.scorer(phase), s.config, merged, batch, s.data, None)[name]
        return weight * mean.value

    for name, reached in (("gate", "gate"), ("text", "encoders")):
        gradient = jax.grad(part)(state.params, name)
        moved = {path.split("/")[0] for path, leaf in leaves(gradient).items() if np.asarray(leaf).any()}
        assert reached in moved
        assert ("gate" in moved) == (name == "gate")
        assert ("encoders" in moved) == (name == "text")
    starts = [float(np.asarray(state.params["gate"][f"{e}_bucket"])[0]) for e in phase.experts]
    assert starts == [-2.0, 1.0, 0.0]
    after, _ = s.step(phase, optimizer, state, batch)
    moved = np.abs(after.params["gate"]["id_bucket"] - state.params["gate"]["id_bucket"])
    np.testing.assert_allclose(moved.max(), 0.03 * 1e-3, rtol=0.1)  # decay included


@pytest.mark.slow
def test_ids_alone_are_trained_without_the_adjustment(setup):
    """Phase 1 is the same function with it as without; the text expert's and the fused loss are not."""
    values = {}
    for tau in (0.0, 0.5):
        s = setup("staged", "best", **{"train.adjustment": tau})
        first, _, last = s.method.phases
        _, state = s.state(first)
        batch, _ = s.batch()
        values[tau, "pretrain"] = float(s.loss(first, state.params, batch))
        _, state = s.state(last, s.previous(last))
        _, metrics = s.step(last, s.optimizer(last), state, batch)
        values |= {(tau, name): float(metrics[name]) for name in ("text", "gate")}
    assert values[0.5, "pretrain"] == values[0.0, "pretrain"]
    assert all(values[0.5, name] != values[0.0, name] for name in ("text", "gate"))
