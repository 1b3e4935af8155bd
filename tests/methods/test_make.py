"""MAKE: two experts and one number."""

import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.models.gate import GATES
from tests.support.steps import leaves, names


def test_make_fuses_with_one_number_between_zero_and_one(setup):
    s = setup("make")
    phase = s.method.phases[1]
    previous = s.previous(phase)
    _, state = s.state(phase, previous)
    assert phase.experts == ("id", "text")
    for part in ("tables", "towers", "encoders"):
        for path, leaf in leaves(previous[part]).items():
            np.testing.assert_array_equal(leaves(state.params[part])[path], leaf)
    assert names(state.params["gate"]) == {"scalar"}
    vectors = (jnp.ones((3, 16)), jnp.zeros((3, 16)))
    for numbers, expected in (((0.0, 0.0), 0.5), ((1.0, -1.0), 1 / (1 + np.exp(-2))), ((-50.0, 50.0), 0.0)):
        gate = {"params": {"scalar": jnp.asarray(numbers)}}
        weights = GATES["scalar"](s.config, phase.experts).apply(gate, vectors, jnp.array([0, 1, 10]))
        np.testing.assert_allclose(weights, [[expected, 1 - expected]] * 3, atol=1e-6)


@pytest.mark.slow
def test_experts_are_trained_apart_first(setup):
    """Stage 1 gives each expert the gradient that it has alone, and leaves the number where it is."""
    s = setup("make", "best")
    phase = s.method.phases[0]
    optimizer, state = s.state(phase)
    batch, _ = s.batch()
    after, metrics = s.step(phase, optimizer, state, batch)
    assert set(metrics) == {"id", "text", "loss"}
    assert names(after.frozen) == {"gate/scalar"}
    alone = setup("sasrec", "best")
    first = alone.method.phases[0]
    params = {"tables": {"id": state.params["tables"]["id"]}, "encoders": {"id": state.params["encoders"]["id"]}}
    np.testing.assert_allclose(metrics["id"], alone.loss(first, params, batch), rtol=1e-6)
    rate = s.config.train.gate_rate * s.config.finetune.learning_rate
    last = s.method.phases[1]
    optimizer, state = s.state(last, s.previous(last))
    moved, _ = s.step(last, optimizer, state, batch)
    np.testing.assert_allclose(np.abs(moved.params["gate"]["scalar"]), rate, rtol=1e-3)  # AdamW's first step
