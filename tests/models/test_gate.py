"""The gate against the official formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.models.gate import GATES
from tests.support.states import WIDTH

EXPERTS = ("id", "aligned", "text")
# (bucket, aligned_start) -> (id, aligned, text), computed from the official formula.
STARTS = {
    (1, -4.0): (0.5677, 0.0130, 0.4192),
    (5, -4.0): (0.496, 0.009, 0.496),
    (10, -4.0): (0.404, 0.005, 0.591),
    (1, 0.2): (0.404, 0.298, 0.298),
    (10, 0.2): (0.324, 0.201, 0.474),
}


@pytest.mark.parametrize("kind", ["bucket", "bucket_emb"])
@pytest.mark.parametrize(("bucket", "aligned"), STARTS)
def test_gate_starts_where_the_official_one_does(make_config, kind, bucket, aligned):
    gate = GATES[kind](make_config(**{"gate.start": (1.0, aligned, 0.0)}), EXPERTS)
    vectors = tuple(jax.random.normal(jax.random.key(k), (1, WIDTH)) for k in range(3))
    params = gate.init(jax.random.key(0), vectors, jnp.array([bucket]))
    weights = gate.apply(params, vectors, jnp.array([bucket]))[0]
    np.testing.assert_allclose(weights, STARTS[bucket, aligned], atol=6e-4)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_gate_formula_in_float64(make_config):
    """sigmoid(a_k[b]) / sum_j sigmoid(a_j[b]) to 1e-9."""
    with jax.enable_x64(True):
        gate = GATES["bucket"](make_config(**{"gate.start": (1.0, -4.0, 0.0)}), EXPERTS)
        vectors = (jnp.zeros((11, 2)),) * 3
        params = gate.init(jax.random.key(0), vectors, jnp.arange(11))
        weights = np.asarray(gate.apply(params, vectors, jnp.arange(11)), np.float64)
        logits = np.stack([np.linspace(1, 0, 11), np.linspace(-4, -5, 11), np.linspace(0, 1, 11)], axis=-1)
        sigmoid = 1 / (1 + np.exp(-logits))
        np.testing.assert_allclose(weights, sigmoid / sigmoid.sum(-1, keepdims=True), rtol=1e-9)


def test_shared_gate_does_not_know_the_bucket(make_config):
    vectors = (jnp.zeros((2, WIDTH)),) * 3
    for kind, same in (("shared", True), ("bucket", False)):
        gate = GATES[kind](make_config(), EXPERTS)
        params = gate.init(jax.random.key(0), vectors, jnp.array([1, 10]))
        weights = np.asarray(gate.apply(params, vectors, jnp.array([1, 10])))
        assert np.array_equal(weights[0], weights[1]) == same
