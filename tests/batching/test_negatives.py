"""Negatives are uniform over what a user has not met."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.batching.device import device_data, gaps_of
from pad_jax.batching.negatives import draw_negatives
from pad_jax.data.dataset import ItemLists, from_sequences
from pad_jax.data.settings import DataSettings


def test_negatives_are_uniform_outside_the_training_prefix():
    met = ItemLists(np.array([2, 4, 1, 3, 7, 5], np.int32), np.array([0, 2, 5, 6]))  # the second user has met 1, 3, 7
    begin, end = (jnp.full(60000, n) for n in (2, 5))
    draws = draw_negatives(jax.random.key(0), jnp.arange(60000), begin, end, jnp.asarray(gaps_of(met)), 9)
    counts = np.bincount(draws, minlength=10)
    allowed = [2, 4, 5, 6, 8, 9]
    assert counts[allowed].sum() == 60000
    np.testing.assert_allclose(counts[allowed] / 10000, 1, atol=0.05)


def test_negatives_are_outside_the_whole_prefix_where_the_window_is_shorter():
    sequences = [[*range(1, 9), 9, 10], [11, 12, 13, 14]]
    dataset = from_sequences("made", [str(i) for i in range(15)], [""] * 15, ["a", "b"], sequences)
    data = device_data(dataset, DataSettings(length=3, buckets=2), None)
    begin, end = (jnp.full(2000, n) for n in data.gap_ends[0])
    draws = np.asarray(draw_negatives(jax.random.key(0), jnp.arange(2000), begin, end, jnp.asarray(data.gaps), 15))
    assert set(draws.tolist()) == set(range(9, 16))
