"""Tokens without padding: the events of a batch as one list [T], and where each stands in the grid [B, L].

70 % of the slots of left-padded [B, L] inputs are empty on Prime Pantry. Users are therefore packed into Z bins of L
tokens, T = Z * L, and everything that works on one position at a time (projections, feed-forward layers, towers,
losses) sees these T tokens only. No user lies in two bins, so attention is within bins. Recurrence and convolution move
to the grid and back: both moves are the same permutation, so the backward pass of each is a gather as well, never a
scatter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int32, Shaped

_PACKED = 256  # rows whose bins are searched for the best fit


class Grid(NamedTuple):
    """T tokens and a grid [R, W]: the two directions of one permutation."""

    cell: Int[Array, " T"]  # token -> row * W + column; R * W for an unused one
    token: Int[Array, "R W"]  # cell -> token; T for an empty cell

    @property
    def valid(self) -> Bool[Array, " T"]:
        return self.cell < self.token.size

    @property
    def mask(self) -> Bool[Array, "R W"]:
        return self.token < self.cell.shape[0]

    def to_grid(self, x: Shaped[Array, "T ..."]) -> Shaped[Array, "R W ..."]:
        """Tokens to their cells; empty cells hold zeros."""
        return move(x, self.token.reshape(-1), self.cell).reshape(*self.token.shape, *x.shape[1:])

    def to_tokens(self, x: Shaped[Array, "R W ..."]) -> Shaped[Array, "T ..."]:
        """The inverse of `to_grid`; unused tokens hold zeros."""
        return move(x.reshape(-1, *x.shape[2:]), self.cell, self.token.reshape(-1))


class Layout(NamedTuple):
    """Users' histories as tokens: row b of the grid is a user, slot L-1 holds the user's newest event."""

    grid: Grid
    first_row: Int[Array, ""]  # number of the first row within the whole batch (all devices)

    @property
    def length(self) -> int:
        return self.grid.token.shape[1]

    @property
    def slot(self) -> Int[Array, " T"]:
        return self.grid.cell % self.length

    @property
    def uid(self) -> Int[Array, " T"]:
        """Names every token within the whole batch: random draws are keyed by it."""
        return self.grid.cell + self.first_row * self.length

    def last(self, x: Shaped[Array, "T ..."]) -> Shaped[Array, "B ..."]:
        """The newest token of every row; zeros for a row without events."""
        return jnp.take(x, self.grid.token[:, -1], axis=0, mode="fill", fill_value=0)

    @property
    def distance(self) -> Int[Array, "L L"]:
        """How many tokens each token of a bin stands behind another (columns); negative for later ones."""
        place = jnp.arange(self.length)
        return place[:, None] - place[None]

    @property
    def seen(self) -> Bool[Array, "Z L L"]:
        """Which tokens of its bin each token sees: the same user's, up to itself."""
        user = self.bins(self.grid.cell // self.length)
        return (user[:, :, None] == user[:, None]) & (self.distance >= 0)[None]

    def bins(self, x: Shaped[Array, "T ..."]) -> Shaped[Array, "Z L ..."]:
        """Tokens by the bin that holds them."""
        return x.reshape(-1, self.length, *x.shape[1:])


def pack(lengths: Int[np.ndarray, "K B"], size: int) -> tuple[Int32[np.ndarray, "K B"], Int[np.ndarray, " K"]]:
    """Puts rows of `lengths` tokens into bins of `size`, so that none lies in two: best fit, longest first.

    Returns the place of every row's first token among the bins laid end to end, and how many bins are used, for each
    of K batches. Runs on the host, over all batches at once. A search is among the bins of at most `_PACKED` rows, so
    that the cost is linear in B: longer batches are packed in parts.
    """
    batches, rows = lengths.shape
    if rows > _PACKED:
        parts = -(-rows // _PACKED)
        padded = np.pad(lengths, ((0, 0), (0, parts * _PACKED - rows))).reshape(-1, _PACKED)
        start, bins = pack(padded, size)
        bins = bins.reshape(batches, parts)
        before = np.cumsum(bins, axis=1) - bins
        start = start.reshape(batches, parts, -1) + np.int32(size) * before[..., None].astype(np.int32)
        return start.reshape(batches, -1)[:, :rows], bins.sum(axis=1)
    most = min(rows, 2 * int(lengths.sum(axis=1).max(initial=0)) // size + 1)  # any two bins hold more than one could
    free = np.full((batches, most), size)
    start = np.zeros(lengths.shape, np.int32)
    batch = np.arange(batches)
    for row in np.argsort(-lengths, axis=1, kind="stable").T:
        need = lengths[batch, row]
        if not need.any():
            break
        chosen = np.where(free >= need[:, None], free, size + 1).argmin(axis=1)
        start[batch, row] = (chosen + 1) * size - free[batch, chosen]
        free[batch, chosen] -= need
    return start, (free < size).sum(axis=1)


def lay_out(
    mask: Bool[Array, "B L"], start: Int[Array, " B"], tokens: int, first_row: int | Int[Array, ""] = 0
) -> Layout:
    """The layout of a left-padded grid whose rows `pack` has put into bins of L: row b begins at token `start[b]`.

    `tokens` is T, a multiple of L that holds all bins.
    """
    token = jnp.where(mask, start[:, None] + jnp.cumsum(mask, axis=1) - 1, tokens)
    cell = jnp.full(tokens, mask.size).at[token.reshape(-1)].set(jnp.arange(mask.size), mode="drop")
    return Layout(Grid(cell, token), jnp.asarray(first_row, jnp.int32))


def compact(mask: Bool[Array, "B W"], tokens: int) -> Grid:
    """The true cells in row-major order as a list of `tokens`: at least their number, or some are lost."""
    flat = mask.reshape(-1)
    (cell,) = jnp.nonzero(flat, size=tokens, fill_value=flat.size)
    return Grid(cell, jnp.where(flat, jnp.cumsum(flat) - 1, tokens).reshape(mask.shape))


@jax.custom_vjp
def move(x, index, inverse):
    """y[i] = x[index[i]], zeros where the index lies outside; `inverse` undoes `index`."""
    del inverse
    return jnp.take(x, index, axis=0, mode="fill", fill_value=0)


def _move_forward(x, index, inverse):
    return move(x, index, inverse), (index, inverse)


def _move_backward(residual, gradient):
    index, inverse = residual
    return move(gradient, inverse, index), None, None


move.defvjp(_move_forward, _move_backward)
