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
    for path, leaf in leaves(previous["towers"]).items():
        np.testing.assert_array_equal(leaves(state.params["towers"])[path], leaf)
    assert names(state.params["gate"]) == {"scalar"}
    vectors = (jnp.ones((3, 16)), jnp.zeros((3, 16)))
    for numbers, expected in (((0.0, 0.0), 0.5), ((1.0, -1.0), 1 / (1 + np.exp(-2))), ((-50.0, 50.0), 0.0)):
        gate = {"params": {"scalar": jnp.asarray(numbers)}}
        weights = GATES["scalar"](s.config, phase.experts).apply(gate, vectors, jnp.array([0, 1, 10]))
        np.testing.assert_allclose(weights, [[expected, 1 - expected]] * 3, atol=1e-6)


@pytest.mark.slow
def test_make_learns_its_number_at_the_common_rate(setup):
    """AdamW's first step is one learning rate long, whatever `train.gate_rate` says of the frequency gate."""
    s = setup("make", "best")
    phase = s.method.phases[1]
    optimizer, state = s.state(phase, s.previous(phase))
    batch, _ = s.batch()
    after, _ = s.step(phase, optimizer, state, batch)
    np.testing.assert_allclose(np.abs(after.params["gate"]["scalar"]), 1e-3, rtol=1e-3)
    pad = setup("pad", "best")
    phase = pad.method.phases[2]
    optimizer, state = pad.state(phase, pad.previous(phase))
    after, _ = pad.step(phase, optimizer, state, batch)
    moved = np.abs(after.params["gate"]["id_bucket"] - state.params["gate"]["id_bucket"])
    np.testing.assert_allclose(moved.max(), 0.03 * 1e-3, rtol=0.1)  # decay included
