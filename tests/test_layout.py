"""Tokens and grid are two views of the same events."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.data.batches import Blocks, Caps, device_data, history_gaps, make_batch, packer
from pad_jax.data.dataset import from_sequences
from pad_jax.errors import UserError
from pad_jax.losses.recommendation import draw_negatives
from pad_jax.models.layout import compact, pack
from tests.conftest import laid_out


def left_padded(random, rows, length):
    return np.arange(length) >= length - random.integers(0, length + 1, size=(rows, 1))


@pytest.mark.parametrize("spare", [0, 2])
def test_grid_and_tokens_are_inverse(spare):
    random = np.random.default_rng(0)
    mask = left_padded(random, 6, 5)
    layout = laid_out(mask, spare=spare)
    x = jnp.asarray(random.normal(size=(len(layout.grid.cell), 3)), jnp.float32)
    grid = np.asarray(layout.grid.to_grid(x))
    used = np.asarray(layout.grid.valid)
    assert used.sum() == mask.sum()
    np.testing.assert_array_equal(grid[mask], x[layout.grid.token[mask]])
    assert not grid[~mask].any()
    back = np.asarray(layout.grid.to_tokens(jnp.asarray(grid)))
    np.testing.assert_array_equal(back[used], x[used])
    assert not back[~used].any()
    np.testing.assert_array_equal(layout.grid.mask, mask)
    np.testing.assert_array_equal(layout.last(x)[mask[:, -1]], grid[:, -1][mask[:, -1]])


def test_compact_lists_are_in_row_major_order():
    mask = left_padded(np.random.default_rng(2), 6, 5)
    grid = compact(jnp.array(mask), int(mask.sum()) + 3)
    x = jnp.arange(30.0).reshape(6, 5)
    np.testing.assert_array_equal(grid.to_tokens(x)[: mask.sum()], np.asarray(x)[mask])
    np.testing.assert_array_equal(grid.to_grid(grid.to_tokens(x)), np.where(mask, x, 0))


@pytest.mark.parametrize("seed", range(3))
def test_packing_puts_every_row_into_one_bin(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 21, size=(5, 40))
    lengths[4] = 0
    start, bins = pack(lengths, 20)
    for k in range(5):
        owner = np.full(20 * bins[k], -1)
        for row, (begin, length) in enumerate(zip(start[k], lengths[k], strict=True)):
            assert (owner[begin : begin + length] == -1).all()
            assert len(owner[begin : begin + length]) == length
            assert length == 0 or begin // 20 == (begin + length - 1) // 20
            owner[begin : begin + length] = row
        assert bins[k] <= np.ceil(1.15 * lengths[k].sum() / 20)
    awkward, bins = pack(np.full((1, 9), 11), 20)  # no two fit together
    assert bins[0] == 9
    assert sorted(awkward[0]) == list(range(0, 180, 20))


def test_long_batches_are_packed_in_parts():
    lengths = np.random.default_rng(3).integers(0, 21, size=(3, 700))
    start, bins = pack(lengths, 20)
    for k in range(3):
        taken = np.zeros(20 * bins[k], int)
        for begin, length in zip(start[k], lengths[k], strict=True):
            assert length == 0 or begin // 20 == (begin + length - 1) // 20
            taken[begin : begin + length] += 1
        assert taken.max() == 1
        assert taken.sum() == lengths[k].sum()
        assert bins[k] <= np.ceil(1.15 * lengths[k].sum() / 20)


def test_moves_have_the_gradient_of_a_plain_gather():
    mask = left_padded(np.random.default_rng(1), 4, 6)
    layout = laid_out(mask, spare=1)
    x = jax.random.normal(jax.random.key(0), (len(layout.grid.cell), 2))

    def plain(x):
        return jnp.sin(jnp.concatenate([x, jnp.zeros((1, 2))])[jnp.minimum(layout.grid.token, len(x))]).sum()

    np.testing.assert_allclose(jax.grad(lambda x: jnp.sin(layout.grid.to_grid(x)).sum())(x), jax.grad(plain)(x))


@pytest.fixture
def batch_of(dataset, text):
    data = device_data(dataset, 8, 10, text)

    def make(rows, group=4, key=0):
        rows = np.asarray(rows, np.int32)
        packed, caps = packer(data.windows, 1, group)(rows[None])
        packed = jax.tree.map(lambda x: jnp.asarray(x[0]), packed)
        data_on_device = jax.tree.map(jnp.asarray, data)
        return data, make_batch(data_on_device, packed, jnp.int32(0), jax.random.key(key), caps)

    return make


def test_batch_holds_every_position_once(batch_of):
    rows = [5, 0, 36, 7, 8, 9, -1, -1]
    data, batch = batch_of(rows)
    windows = np.where(np.array(rows)[:, None] >= 0, data.windows[rows], 0)
    inputs, targets = windows[:, :-1], windows[:, 1:]
    valid = np.asarray(batch.valid)
    assert valid.sum() == (inputs > 0).sum()
    items = jnp.asarray(batch.items, jnp.float32)[:, None]
    place = np.asarray(batch.layout.grid.token)[inputs > 0]
    np.testing.assert_array_equal(batch.inputs_of(items)[place, 0], inputs[inputs > 0])
    np.testing.assert_array_equal(batch.targets_of(items)[place, 0], targets[inputs > 0])
    np.testing.assert_array_equal(batch.targets[place], targets[inputs > 0])
    assert not np.asarray(batch.targets)[~valid].any()
    grid = np.asarray(batch.layout.grid.to_grid(batch.inputs_of(items)))[..., 0]
    np.testing.assert_array_equal(grid, inputs)


@pytest.mark.parametrize("take", ["inputs_of", "targets_of"])
def test_rows_of_events_have_the_gradient_of_a_plain_gather(batch_of, take):
    _, batch = batch_of([5, 0, 36, 7])
    x = jax.random.normal(jax.random.key(1), (len(batch.items), 2))
    index = batch.event + (take == "targets_of")

    def plain(x):
        return jnp.where(batch.valid[:, None], jnp.sin(x[jnp.minimum(index, len(x) - 1)]), 0).sum()

    np.testing.assert_allclose(jax.grad(lambda x: jnp.sin(getattr(batch, take)(x)).sum())(x), jax.grad(plain)(x))


def test_groups_hold_the_events_of_their_users(batch_of):
    rows = [5, 0, 36, 7, 8, 9, -1, -1]
    data, batch = batch_of(rows)
    windows = np.where(np.array(rows)[:, None] >= 0, data.windows[rows], 0)
    events, negatives = batch.groups
    items = np.asarray(events.to_grid(jnp.asarray(batch.items, jnp.float32)))
    drawn = np.asarray(negatives.to_grid(jnp.asarray(batch.negatives, jnp.float32)))
    for group in range(2):
        mine = windows[4 * group : 4 * group + 4]
        np.testing.assert_array_equal(items[group][events.mask[group]], mine[mine > 0])
        assert (drawn[group] > 0).sum() == (mine[:, :-1] > 0).sum()


def test_caps_leave_room_for_a_padding_row(batch_of):
    for rows in ([1, 2, 3, 4], [0, 0, 0, 0]):
        _, batch = batch_of(rows)
        assert int(batch.items[-1]) == 0


def test_negatives_are_uniform_outside_the_training_prefix():
    windows = np.array([[0, 0, 3, 7, 3, 1]], np.int32)
    gaps = history_gaps(windows, 9)
    draws = draw_negatives(jax.random.key(0), jnp.arange(60000), jnp.repeat(jnp.asarray(gaps), 60000, axis=0), 9)
    counts = np.bincount(draws, minlength=10)
    allowed = [2, 4, 5, 6, 8, 9]
    assert counts[allowed].sum() == 60000
    np.testing.assert_allclose(counts[allowed] / 10000, 1, atol=0.05)


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


def test_caps_hold_on_every_device():
    lengths = np.array([3, 9, 4, 2, 5, 6, 7, 8])
    windows = np.where(np.arange(9) >= 9 - lengths[:, None], np.arange(1, 73).reshape(8, 9), 0).astype(np.int32)
    rows = np.array([[0, 1, 2, 3, 4, 5, 6, -1]], np.int32)
    _, caps = packer(windows, devices=2, group=2)(rows)
    assert isinstance(caps, Caps)
    assert caps.tokens == 3 * 8  # 2 + 8 + 3 + 1 and 4 + 5 + 6 tokens in bins of 8: 8, 3 + 2 + 1; 6, 5, 4
    assert caps.events >= max(3 + 9 + 4 + 2, 5 + 6 + 7) + 1
    assert caps.group_tokens >= 12
    assert caps.items >= 3 + 9 + 4 + 2 + 1


def test_caps_hold_every_item_of_full_windows_and_padding():
    windows = np.arange(1, 33, dtype=np.int32).reshape(4, 8)
    _, caps = packer(windows, devices=1, group=4)(np.arange(4, dtype=np.int32)[None])
    assert caps.items >= 32 + 1


def test_negatives_are_outside_the_whole_prefix_where_the_window_is_shorter():
    sequences = [[*range(1, 9), 9, 10], [11, 12, 13, 14]]
    dataset = from_sequences("made", [str(i) for i in range(15)], [""] * 15, ["a", "b"], sequences)
    data = device_data(dataset, 3, 2, None)
    gaps = jnp.repeat(jnp.asarray(data.gaps[:1]), 2000, axis=0)
    draws = np.asarray(draw_negatives(jax.random.key(0), jnp.arange(2000), gaps, 15))
    assert set(draws.tolist()) == set(range(9, 16))


def test_a_user_who_has_met_every_item_is_an_error():
    dataset = from_sequences("made", ["x", "y", "z"], [""] * 3, ["a", "b"], [[1, 2, 1, 2], [3, 1, 2, 3, 1]])
    with pytest.raises(UserError, match="user b has met all 3 items"):
        device_data(dataset, 3, 2, None)
