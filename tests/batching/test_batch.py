"""Batches hold every event of their users once, and lists of static size hold every batch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.batching import batch as batching
from pad_jax.batching.batch import Caps, Rows, make_batch, packer
from pad_jax.batching.device import DeviceData, device_data, gaps_of
from pad_jax.batching.layout import pack
from pad_jax.data.dataset import ItemLists
from pad_jax.data.settings import DataSettings

#: The two users in numbers that the docstring of `batching.batch` shows.
WINDOWS = np.array([[0, 0, 7, 3, 7], [0, 5, 9, 2, 8]], np.int32)


@pytest.fixture
def batch_of(dataset, text):
    data = device_data(dataset, DataSettings(length=8), text)
    made = jax.jit(make_batch, static_argnames="caps")

    def make(rows, group=4, key=0):
        rows = np.asarray(rows, np.int32)
        packed, caps = packer(data.windows, 1, group)(rows[None])
        packed = jax.tree.map(lambda x: jnp.asarray(x[0]), packed)
        on_device = jax.tree.map(jnp.asarray, data)
        return data, made(on_device, packed, jnp.int32(0), jax.random.key(key), caps)

    return make


def test_batch_holds_every_position_once(batch_of):
    rows = [5, 0, 36, 7, 8, 9, -1, -1]
    data, batch = batch_of(rows)
    windows = np.where(np.array(rows)[:, None] >= 0, data.windows[rows], 0)
    inputs, targets = windows[:, :-1], windows[:, 1:]
    valid = np.asarray(batch.valid)
    assert valid.sum() == (inputs > 0).sum()
    items = jnp.asarray(batch.event_item, jnp.float32)[:, None]
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
    x = jax.random.normal(jax.random.key(1), (len(batch.event_item), 2))
    index = batch.input_event + (take == "targets_of")

    def plain(x):
        return jnp.where(batch.valid[:, None], jnp.sin(x[jnp.minimum(index, len(x) - 1)]), 0).sum()

    np.testing.assert_allclose(jax.grad(lambda x: jnp.sin(getattr(batch, take)(x)).sum())(x), jax.grad(plain)(x))


def test_groups_hold_the_events_of_their_users(batch_of):
    rows = [5, 0, 36, 7, 8, 9, -1, -1]
    data, batch = batch_of(rows)
    windows = np.where(np.array(rows)[:, None] >= 0, data.windows[rows], 0)
    events, negatives = batch.groups
    items = np.asarray(events.to_grid(jnp.asarray(batch.event_item, jnp.float32)))
    drawn = np.asarray(negatives.to_grid(jnp.asarray(batch.negatives, jnp.float32)))
    for group in range(2):
        mine = windows[4 * group : 4 * group + 4]
        np.testing.assert_array_equal(items[group][events.mask[group]], mine[mine > 0])
        assert (drawn[group] > 0).sum() == (mine[:, :-1] > 0).sum()


def test_caps_leave_room_for_a_padding_row(batch_of):
    for rows in ([1, 2, 3, 4], [0, 0, 0, 0]):
        _, batch = batch_of(rows)
        assert int(batch.event_item[-1]) == 0


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


def shown(name):
    """The numbers of a line of the docstring; -1 for what is not there."""
    line = re.search(rf"^    {name} +((?:[\d-]+ ?)+)", batching.__doc__, re.M).group(1)
    return np.array([-1 if part == "-" else int(part) for part in line.split()])


def test_the_docstring_is_what_is_made():
    none = np.zeros(10, np.int32)
    met = [np.unique(row[row > 0]) for row in WINDOWS]
    lists = ItemLists(np.concatenate(met).astype(np.int32), np.cumsum([0, *map(len, met)]))
    ends = np.stack([lists.starts[:-1], lists.starts[1:]], axis=1).astype(np.int32)
    data = DeviceData(WINDOWS, gaps_of(lists), ends, none, none, np.zeros((10, 0), np.float32))
    lengths = (WINDOWS[:, :-1] > 0).sum(axis=1)
    start, bins = pack(lengths[None], 4)
    np.testing.assert_array_equal(start[0], [4, 0])
    assert bins[0] == 2
    caps = Caps(tokens=8, events=8, items=8, group=1, group_tokens=8)
    rows = Rows(jnp.arange(2), jnp.asarray(start[0]))
    data = jax.tree.map(jnp.asarray, data)
    made = jax.jit(make_batch, static_argnames="caps")(data, rows, jnp.int32(0), jax.random.key(0), caps)
    event = shown("event ")
    np.testing.assert_array_equal(event, np.arange(7))
    np.testing.assert_array_equal(made.event_item[:7], shown("event_item"))
    np.testing.assert_array_equal(np.asarray(made.distinct)[:7], shown("distinct"))
    np.testing.assert_array_equal(made.event_distinct[:7], shown("event_distinct"))
    np.testing.assert_array_equal(np.asarray(made.distinct)[made.event_distinct], made.event_item)
    np.testing.assert_array_equal(np.where(made.valid, made.input_event, -1), shown("input_event"))
    event_input = np.asarray(made.event_input)[:7]
    np.testing.assert_array_equal(np.where(event_input < 8, event_input, -1), shown("event_input"))
    np.testing.assert_array_equal(made.targets, shown("targets"))
    np.testing.assert_array_equal(made.user, [0, 1])
    items = np.asarray(made.inputs_of(made.event_item))
    np.testing.assert_array_equal(np.where(made.valid, items, 0), [5, 9, 2, 0, 7, 3, 0, 0])
    np.testing.assert_array_equal(np.where(made.valid, made.targets_of(made.event_item), 0), made.targets)
