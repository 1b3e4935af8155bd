"""Batches: blocks of row numbers from the host, everything else gathered on the device."""

from collections.abc import Callable
from typing import NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, PRNGKeyArray

from pad_jax.config import Config
from pad_jax.data.dataset import Dataset, frequency_buckets
from pad_jax.errors import UserError
from pad_jax.losses.recommendation import draw_negatives
from pad_jax.models.layout import Grid, Layout, compact, lay_out, move, pack


class DeviceData(NamedTuple):
    """What stays on the device for a whole phase."""

    windows: Int[Array | np.ndarray, "U W"]  # training prefixes, left-padded
    gaps: Int[Array | np.ndarray, "U H"]  # see `history_gaps`
    bucket: Int[Array | np.ndarray, " I"]
    counts: Int[Array | np.ndarray, " I"]  # training events of each item
    text: Float[Array | np.ndarray, "I E"]  # row 0 zeros; E = 0 when no expert reads text


class Batch(NamedTuple):
    """B users' training windows as tokens: the T inputs of the encoder, and the V events of the windows.

    Window events are in row-major order, so the target of an input is the event behind it. `layout` is the
    encoder's, packed into bins; `event` and its inverse say which window event each input is.
    """

    items: Int[Array, " V"]  # window events, 0 in the unused tail
    distinct: Int[Array, " X"]  # the items of the window, each once, and 0
    item: Int[Array, " V"]  # where each window event's item stands among them
    layout: Layout
    event: Int[Array, " T"]  # input -> window event
    input: Int[Array, " V"]  # window event -> input (T for the last of a row and the tail)
    negatives: Int[Array, " T"]
    sample_key: PRNGKeyArray  # draws the items of sampled_softmax
    groups: tuple[Grid, Grid]  # window events and negatives by `group` users, for the MMD

    @property
    def valid(self) -> Bool[Array, " T"]:
        return self.layout.grid.valid

    @property
    def targets(self) -> Int[Array, " T"]:
        """Item numbers to predict."""
        return jnp.where(self.valid, jnp.take(self.items, self.event + 1, mode="clip"), 0)

    def inputs_of(self, x: Float[Array, "V D"]) -> Float[Array, "T D"]:
        """Rows of the inputs among rows of all window events."""
        return move(x, self.event, self.input)

    def targets_of(self, x: Float[Array, "V D"]) -> Float[Array, "T D"]:
        """Rows of the targets among rows of all window events."""
        behind = jnp.concatenate([jnp.full(1, len(self.event), self.input.dtype), self.input[:-1]])
        return move(x, self.event + 1, behind)


class Caps(NamedTuple):
    """Static sizes of a batch's lists on one device."""

    tokens: int  # T
    events: int  # V
    items: int  # X
    group: int  # users per MMD group
    group_tokens: int  # most window events of a group


class ScoredItems(NamedTuple):
    """The R items that a loss needs vectors of, and where the events and the drawn items stand among them."""

    ids: Int[Array, " R"]
    event: Int[Array, " V"]
    drawn: Int[Array, " S"]  # none for ce
    drawn_ids: Int[Array, " S"]


def scored_items(config: Config, batch: Batch, rows: int) -> ScoredItems:
    """The distinct items of the windows followed by the drawn ones, or the catalogue [0..N] where that is less.

    `rows` is N + 1. With ce it is always the catalogue.
    """
    if config.loss == "ce":
        return ScoredItems(jnp.arange(rows), batch.items, batch.items[:0], batch.items[:0])
    drawn = batch.negatives
    if config.loss == "sampled_softmax":
        drawn = jax.random.randint(batch.sample_key, (config.train.sampled,), 1, rows)
    if config.optimizer.tables == "dense" and rows <= len(batch.distinct) + len(drawn):
        return ScoredItems(jnp.arange(rows), batch.items, drawn, drawn)
    ids = jnp.concatenate([batch.distinct, drawn])
    return ScoredItems(ids, batch.item, len(batch.distinct) + jnp.arange(len(drawn)), drawn)


def history_gaps(history: Int32[np.ndarray, "U H"], items: int) -> Int32[np.ndarray, "U H"]:
    """For the distinct items s_1 < s_2 < .. of each row: s_j - j, the other items before s_j; padded with N."""
    ordered = np.sort(history, axis=1)
    new = np.ones(ordered.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    new &= ordered > 0
    gaps = np.where(new, ordered - np.cumsum(new, axis=1), items)
    return np.sort(gaps, axis=1).astype(np.int32)


def device_data(dataset: Dataset, length: int, buckets: int, text: Float[np.ndarray, "I E"] | None) -> DeviceData:
    """The arrays of a dataset that training needs; host arrays, to be placed by `parallel.replicate`.

    Raises UserError when a user's training prefix holds every item, or when no prefix has two events.
    """
    if not len(dataset.training_users):
        raise UserError(f"{dataset.name}: no user has two training events, of which one could predict the next")
    gaps = history_gaps(dataset.train_prefixes(), dataset.items)
    met_all = np.flatnonzero((gaps < dataset.items).sum(axis=1) == dataset.items)
    if len(met_all):
        user = dataset.user_ids[dataset.training_users[met_all[0]]]
        raise UserError(f"{dataset.name}: user {user} has met all {dataset.items} items before the last two")
    if text is None:
        text = np.zeros((dataset.items + 1, 0), np.float32)
    bucket, _ = frequency_buckets(dataset.counts, buckets)
    return DeviceData(dataset.train_windows(length), gaps, bucket, dataset.counts.astype(np.int32), text)


class Rows(NamedTuple):
    """What the host says of K batches: their users (-1: none), and where each one's tokens begin, see `pack`."""

    user: Int[Array | np.ndarray, "*K B"]
    start: Int[Array | np.ndarray, "*K B"]


def make_batch(data: DeviceData, rows: Rows, first_row: Int[Array, ""], key: PRNGKeyArray, caps: Caps) -> Batch:
    """Gathers the windows of users `rows` and draws a negative per position; runs on the device."""
    user = jnp.asarray(rows.user)
    windows = jnp.where(user[:, None] >= 0, data.windows[user], 0)
    mask, width = windows > 0, windows.shape[1]
    layout = lay_out(mask[:, :-1], jnp.asarray(rows.start), caps.tokens, first_row)
    events = compact(mask, caps.events)
    row, slot = layout.grid.cell // (width - 1), layout.slot
    inside = layout.grid.valid
    event = jnp.where(inside, jnp.take(events.token.reshape(-1), row * width + slot, mode="clip"), caps.events)
    event_row, event_slot = events.cell // width, events.cell % width
    is_input = events.valid & (event_slot < width - 1)
    input_ = jnp.where(
        is_input,
        jnp.take(layout.grid.token.reshape(-1), event_row * (width - 1) + event_slot, mode="clip"),
        caps.tokens,
    )
    negatives = draw_negatives(
        key, layout.uid, jnp.take(data.gaps, jnp.take(user, row, mode="clip"), axis=0), data.bucket.shape[0] - 1
    )
    items = jnp.take(windows.reshape(-1), events.cell, mode="fill", fill_value=0)
    distinct, item = jnp.unique(items, size=caps.items, fill_value=0, return_inverse=True)
    return Batch(
        items=items,
        distinct=distinct,
        item=item,
        layout=layout,
        event=event,
        input=input_,
        negatives=jnp.where(inside, negatives, 0),
        sample_key=jax.random.fold_in(key, 2**32 - 1),  # no position's number
        groups=(_group(events, caps), _group(layout.grid, caps)),
    )


def _group(grid: Grid, caps: Caps) -> Grid:
    """Tokens of each `group` consecutive rows as one row of a grid of `group_tokens` columns."""
    rows = grid.token.shape[0]
    count, tokens = rows // caps.group, len(grid.cell)
    mask = grid.mask.reshape(count, -1)
    size = count * caps.group_tokens
    place = jnp.arange(count)[:, None] * caps.group_tokens + jnp.cumsum(mask, axis=1) - 1
    place = jnp.where(mask, place, size).reshape(-1)
    token = jnp.full(size, tokens).at[place].set(grid.token.reshape(-1), mode="drop")
    cell = jnp.take(place, grid.cell, mode="fill", fill_value=size)
    return Grid(cell, token.reshape(count, caps.group_tokens))


class Blocks:
    """The order of users: an endless grain stream of blocks of K batches, a new one every epoch.

    Users are sorted by history length, cut into `group` strata of neighbours, and dealt at random: each `group` rows
    of a batch hold one user of every stratum. Groups are dealt to batches by their events in the same way. All samples
    of the alignment loss so have about the same number of events, and all batches nearly exactly: the lists of a
    batch, whose sizes are static, need no room for an unusual one.

    Differs: the paper and the official code shuffle all users.

    An epoch is every user once. Rows without a user make up the number: some in its batches, and the batches that its
    last block lacks.
    """

    def __init__(self, lengths: Int[np.ndarray, " U"], batch: int, group: int, steps: int, seed: int):
        self.lengths, self.batch, self.group = lengths, batch, group
        self.epoch_steps = -(-len(lengths) // batch)
        self.blocks = -(-self.epoch_steps // steps)
        self.steps = -(-self.epoch_steps // self.blocks)
        self._seed = seed
        self._epoch = (-1, np.zeros((0, batch), np.int32))
        self._stream = grain.MapDataset.range(self.blocks).repeat().map_with_index(self._block)

    def rows(self, batches: int) -> Int32[np.ndarray, "S B"]:
        """The first `batches` batches."""
        return np.concatenate([self._epoch_rows(e) for e in range(-(-batches // self.epoch_steps))])[:batches]

    def _epoch_rows(self, epoch: int) -> Int32[np.ndarray, "S B"]:
        """All batches of an epoch; -1 where there is no user."""
        if self._epoch[0] != epoch:
            random = np.random.default_rng([self._seed, epoch])
            groups = _deal(self.lengths, self.group, random)
            events = np.where(groups >= 0, self.lengths[groups], 0).sum(axis=1)
            batches = _deal(events, self.batch // self.group, random)
            rows = np.full((self.blocks * self.steps, self.batch), -1, np.int32)
            rows[: len(batches)] = np.where(batches[..., None] >= 0, groups[batches], -1).reshape(len(batches), -1)
            self._epoch = (epoch, rows)
        return self._epoch[1]

    def _block(self, index: int, _: int) -> tuple[Int32[np.ndarray, "K B"], int]:
        epoch, block = divmod(index, self.blocks)
        rows = self._epoch_rows(epoch)[block * self.steps : (block + 1) * self.steps]
        return rows, min(self.steps, self.epoch_steps - block * self.steps)

    def iterator(self):
        """A grain iterator of (rows [K, B], number of batches that hold users); its state goes into checkpoints."""
        return iter(self._stream.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=1)))


def _deal(size: Int[np.ndarray, " n"], count: int, random: np.random.Generator) -> Int[np.ndarray, "hands count"]:
    """Deals 0..n-1 at random into hands of `count`, one of every stratum by `size`; -1 makes up the number."""
    hands = -(-len(size) // count)
    order = random.permutation(len(size)).astype(np.int32)
    order = order[np.argsort(size[order], kind="stable")]
    strata = np.concatenate([np.full(hands * count - len(size), -1, np.int32), order]).reshape(count, hands)
    return random.permuted(strata, axis=1).T


def packer(
    windows: Int32[np.ndarray, "U W"], devices: int, group: int, whole_groups: bool = False
) -> Callable[[Int32[np.ndarray, "K B"]], tuple[Rows, Caps]]:
    """A function from users to their places and the sizes that hold each of these batches on every device.

    Sizes are rounded up so that few shapes are compiled. `whole_groups` gives every group room for all its slots,
    empty ones included.
    """
    typical = float((windows > 0).mean())

    def packed(rows: Int32[np.ndarray, "K B"]) -> tuple[Rows, Caps]:
        held = np.where(rows[:, :, None] >= 0, windows[rows], 0)
        steps, batch, width = held.shape
        per_row = (held > 0).sum(axis=2)
        inputs = np.maximum(per_row - 1, 0).reshape(steps * devices, -1)
        start, bins = pack(inputs, width - 1)
        events = per_row.reshape(steps, devices, -1).sum(axis=2)
        grouped = per_row.reshape(steps, -1, group).sum(axis=2)
        ordered = np.sort(held.reshape(steps, devices, -1), axis=2)
        distinct = 2 + (ordered[..., 1:] != ordered[..., :-1]).sum(axis=2)  # the first, and 0 where no slot is empty
        slots = batch // devices * width
        caps = Caps(
            tokens=max(int(bins.max()), 1) * (width - 1),
            events=_round_up(1 + int(events.max()), typical * slots),
            items=_round_up(int(distinct.max()), typical * slots),
            group=group,
            group_tokens=group * width if whole_groups else _round_up(int(grouped.max()), typical * group * width),
        )
        return Rows(rows, start.reshape(rows.shape)), caps

    return packed


def common_caps(first: Caps, second: Caps) -> Caps:
    """Sizes that hold what either holds."""
    return Caps(*(max(a, b) for a, b in zip(first, second, strict=True)))


def _round_up(count: int, typical: float) -> int:
    """To a multiple of the power of two near 4 % of what is typical."""
    unit = max(8, 1 << int(np.log2(max(typical / 24, 1)) + 0.5))
    return int(-(-count // unit) * unit)
