"""Batches: from the users of a step to everything that its loss looks at, gathered on the device.

Two users with a window of W = 5 (L = 4 inputs and the last target), B = 2:

    windows   user 0:  0 0 7 3 7        user 1:  0 5 9 2 8         0 is padding

Its V = 7 filled slots in row-major order are the **window events**. The four places of a window but the last are
**inputs**; each is a token that predicts the event behind it. `pack` lays the T tokens into bins of L = 4: user 0
has 2 inputs and begins at token 4, user 1 has 3 and begins at token 0.

    event         0 1 2 3 4 5 6         (unused room behind them: item 0)
    event_item    7 3 7 5 9 2 8         item numbers
    distinct      0 2 3 5 7 8 9         every item of the window once, and 0
    event_distinct 4 2 4 3 6 1 5        event_item[v] = distinct[event_distinct[v]]

    token         0 1 2 3 4 5 6 7
    input_event   3 4 5 - 0 1 - -       the window event that a token is: items 5 9 2 . 7 3 . .
    event_input   4 5 - 0 1 2 -         its inverse; the last event of a user is no input
    targets       9 2 8 0 3 7 0 0       the event behind: event_item[input_event + 1]

A loss needs vectors of R **scored items** (`ScoredItems`): `ids` are their numbers, `event_row[v]` says which of the R
rows belongs to window event v, `drawn_row[s]` which to drawn item s. With a loss over the catalogue row r is item r.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int32, PRNGKeyArray, Shaped

from pad_jax.batching.device import DeviceData
from pad_jax.batching.layout import Grid, Layout, compact, lay_out, move, pack
from pad_jax.batching.negatives import draw_negatives
from pad_jax.losses.recommendation import LOSSES
from pad_jax.settings import Config


class Batch(NamedTuple):
    """B users' training windows as tokens: the T inputs of the encoder, and the V events of the windows.

    Window events are in row-major order, so the target of an input is the event behind it. `layout` is the
    encoder's, packed into bins. The module's docstring shows two users in numbers.
    """

    user: Int[Array, " B"]  # row of `DeviceData.windows`; -1: none
    event_item: Int[Array, " V"]  # item numbers, 0 in the unused tail
    distinct: Int[Array, " X"]  # the items of the window, each once, and 0
    event_distinct: Int[Array, " V"]  # where each window event's item stands among them
    layout: Layout
    input_event: Int[Array, " T"]  # which window event each input is
    event_input: Int[Array, " V"]  # which input each window event is (T for the last of a row and the tail)
    negatives: Int[Array, " T"]  # an item that the user has not met, for each input
    sample_key: PRNGKeyArray  # draws the items of a loss that needs samples
    groups: tuple[Grid, Grid]  # window events and negatives by `mmd.group` users, for the MMD

    @property
    def valid(self) -> Bool[Array, " T"]:
        return self.layout.grid.valid

    @property
    def targets(self) -> Int[Array, " T"]:
        """Item numbers to predict."""
        return jnp.where(self.valid, jnp.take(self.event_item, self.input_event + 1, mode="clip"), 0)

    def inputs_of(self, x: Shaped[Array, "V ..."]) -> Shaped[Array, "T ..."]:
        """Rows of the inputs among rows of all window events."""
        return move(x, self.input_event, self.event_input)

    def targets_of(self, x: Shaped[Array, "V ..."]) -> Shaped[Array, "T ..."]:
        """Rows of the targets among rows of all window events."""
        none = jnp.full(1, len(self.input_event), self.event_input.dtype)
        return move(x, self.input_event + 1, jnp.concatenate([none, self.event_input[:-1]]))


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
    event_row: Int[Array, " V"]
    drawn_row: Int[Array, " S"]  # none for a loss over the catalogue
    drawn_ids: Int[Array, " S"]


def scored_items(config: Config, batch: Batch, rows: int) -> ScoredItems:
    """The distinct items of the windows followed by the drawn ones, or the catalogue [0..N] where that is less.

    `rows` is N + 1. With a loss over the catalogue it is always that.
    """
    needs = LOSSES[config.loss].needs
    if needs == "catalogue":
        none = batch.event_item[:0]
        return ScoredItems(jnp.arange(rows), batch.event_item, none, none)
    drawn = batch.negatives
    if needs == "samples":
        drawn = jax.random.randint(batch.sample_key, (config.train.sampled,), 1, rows)
    if config.optimizer.tables == "dense" and rows <= len(batch.distinct) + len(drawn):
        return ScoredItems(jnp.arange(rows), batch.event_item, drawn, drawn)
    ids = jnp.concatenate([batch.distinct, drawn])
    return ScoredItems(ids, batch.event_distinct, len(batch.distinct) + jnp.arange(len(drawn)), drawn)


class Rows(NamedTuple):
    """What the host says of K batches: their users (-1: none), and where each one's tokens begin, see `pack`."""

    user: Int[Array | np.ndarray, "*K B"]
    start: Int[Array | np.ndarray, "*K B"]


def make_batch(data: DeviceData, rows: Rows, first_row: Int[Array, ""], key: PRNGKeyArray, caps: Caps) -> Batch:
    """Gathers the windows of users and draws a negative per position; runs on the device.

    Args:
        data: what stays on the device.
        rows: the users, and where each one's tokens begin.
        first_row: number of the first user within the whole batch, of all devices.
        key: draws negatives and samples.
        caps: static sizes that hold this batch.
    """
    user = jnp.asarray(rows.user)
    windows = jnp.where(user[:, None] >= 0, data.windows[user], 0)
    mask, width = windows > 0, windows.shape[1]
    layout = lay_out(mask[:, :-1], jnp.asarray(rows.start), caps.tokens, first_row)
    events = compact(mask, caps.events)
    row, slot = layout.grid.cell // (width - 1), layout.slot
    inside = layout.grid.valid
    input_event = jnp.where(inside, jnp.take(events.token.reshape(-1), row * width + slot, mode="clip"), caps.events)
    event_row, event_slot = events.cell // width, events.cell % width
    is_input = events.valid & (event_slot < width - 1)
    event_input = jnp.where(
        is_input,
        jnp.take(layout.grid.token.reshape(-1), event_row * (width - 1) + event_slot, mode="clip"),
        caps.tokens,
    )
    owner = jnp.take(user, row, mode="clip")
    begin, end = jnp.take(jnp.asarray(data.gap_ends), owner, axis=0).T
    negatives = draw_negatives(key, layout.uid, begin, end, jnp.asarray(data.gaps), data.bucket.shape[0] - 1)
    event_item = jnp.take(windows.reshape(-1), events.cell, mode="fill", fill_value=0)
    distinct, event_distinct = jnp.unique(event_item, size=caps.items, fill_value=0, return_inverse=True)
    return Batch(
        user=user,
        event_item=event_item,
        distinct=distinct,
        event_distinct=event_distinct,
        layout=layout,
        input_event=input_event,
        event_input=event_input,
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
