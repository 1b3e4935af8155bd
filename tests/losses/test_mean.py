"""Means that add up over parts of a batch."""

import jax
import jax.numpy as jnp

from pad_jax.losses.mean import Mean, masked_mean


def test_means_add_up():
    values = jnp.array([1.0, 2.0, jnp.nan, 4.0])
    mask = jnp.array([True, True, False, True])
    whole = masked_mean(values, mask)
    parts = [masked_mean(values[:2], mask[:2]), masked_mean(values[2:], mask[2:])]
    assert float(whole.value) == float(Mean(parts[0].total + parts[1].total, parts[0].entries + parts[1].entries).value)
    assert float(masked_mean(values, jnp.zeros(4, bool)).value) == 0
    assert float(jax.grad(lambda v: masked_mean(v, mask).value)(values)[2]) == 0
