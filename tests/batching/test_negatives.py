"""Negatives are uniform over what a user has not met."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.batching.device import device_data, history_gaps
from pad_jax.batching.negatives import draw_negatives
from pad_jax.data.dataset import from_sequences


def test_negatives_are_uniform_outside_the_training_prefix():
    windows = np.array([[0, 0, 3, 7, 3, 1]], np.int32)
    gaps = history_gaps(windows, 9)
    draws = draw_negatives(jax.random.key(0), jnp.arange(60000), jnp.repeat(jnp.asarray(gaps), 60000, axis=0), 9)
    counts = np.bincount(draws, minlength=10)
    allowed = [2, 4, 5, 6, 8, 9]
    assert counts[allowed].sum() == 60000
    np.testing.assert_allclose(counts[allowed] / 10000, 1, atol=0.05)


def test_negatives_are_outside_the_whole_prefix_where_the_window_is_shorter():
    sequences = [[*range(1, 9), 9, 10], [11, 12, 13, 14]]
    dataset = from_sequences("made", [str(i) for i in range(15)], [""] * 15, ["a", "b"], sequences)
    data = device_data(dataset, 3, 2, None)
    gaps = jnp.repeat(jnp.asarray(data.gaps[:1]), 2000, axis=0)
    draws = np.asarray(draw_negatives(jax.random.key(0), jnp.arange(2000), gaps, 15))
    assert set(draws.tolist()) == set(range(9, 16))
