"""The order of users."""

import numpy as np

from pad_jax.batching.order import Blocks


def test_blocks_show_every_user_once_an_epoch():
    lengths = np.random.default_rng(4).integers(1, 9, size=37)
    blocks = Blocks(lengths, batch=8, group=4, steps=2, seed=3)
    iterator = blocks.iterator()
    epochs = [[next(iterator) for _ in range(blocks.blocks)] for _ in range(2)]
    orders = []
    for epoch in epochs:
        assert sum(count for _, count in epoch) == blocks.epoch_steps == 5
        rows = np.concatenate([rows[:count].reshape(-1) for rows, count in epoch])
        assert all((rows_[count:] == -1).all() for rows_, count in epoch)
        assert sorted(rows[rows >= 0]) == list(range(37))
        orders.append(rows.tolist())
    assert orders[0] != orders[1]
    state = iterator.get_state()
    following = next(iterator)[0]
    again = blocks.iterator()
    again.set_state(state)
    np.testing.assert_array_equal(next(again)[0], following)


def test_an_epoch_has_the_least_number_of_steps():
    """37 users are 5 batches: 12 of them take three passes, each of every user once, in its own order."""
    lengths = np.random.default_rng(4).integers(1, 9, size=37)
    blocks = Blocks(lengths, batch=8, group=4, steps=4, seed=3, least=12)
    iterator = blocks.iterator()
    epochs = []
    for _ in range(2):
        epoch = [next(iterator) for _ in range(blocks.blocks)]
        assert sum(count for _, count in epoch) == blocks.epoch_steps == 15
        epochs.append(np.concatenate([rows[:count] for rows, count in epoch]))
    passes = np.concatenate(epochs).reshape(6, 5, 8)
    for rows in passes:
        assert sorted(rows[rows >= 0]) == list(range(37))
    assert len({rows.tobytes() for rows in passes}) == 6
    enough = Blocks(lengths, batch=8, group=4, steps=4, seed=3, least=5)
    np.testing.assert_array_equal(enough.rows(10), Blocks(lengths, batch=8, group=4, steps=4, seed=3).rows(10))


def test_batches_are_of_even_size():
    """Every group of 4 rows has a user of each quarter by length; batches differ by a few events, not by many."""
    lengths = np.random.default_rng(5).geometric(0.2, size=800)
    blocks = Blocks(lengths, batch=16, group=4, steps=10, seed=0)
    rows = blocks.rows(50)
    groups = lengths[rows.reshape(-1, 4)]
    ordered = np.sort(lengths)
    for place in range(4):  # a user of stratum k is no shorter than the longest of stratum k - 1
        assert groups[:, place].min() >= ordered[200 * place]
        assert groups[:, place].max() <= ordered[200 * place + 199]
    sums = lengths[rows].sum(axis=1)
    unsorted = lengths[np.random.default_rng(6).permutation(800)].reshape(-1, 16).sum(axis=1)
    assert sums.std() < unsorted.std() / 4
