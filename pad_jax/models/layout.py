"""Tokens without padding: the events of a batch as one list [T], and where each stands in the grid [B, L].

65 % of the slots of a left-padded [B, L] grid are empty on Prime Pantry. Everything that works on one position at a
time (projections, feed-forward layers, towers, losses) therefore sees the T tokens only. Attention looks back along
the list, in chunks; recurrence and convolution move to the grid and back. Both moves are the same permutation, so the
backward pass of each is a gather as well, never a scatter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


class Grid(NamedTuple):
    """T tokens and a grid [R, W]: the two directions of one permutation."""

    cell: Int[Array, " T"]  # token -> row * W + column; R * W for the unused tail
    token: Int[Array, "R W"]  # cell -> token; T for an empty cell

    @property
    def valid(self) -> Bool[Array, " T"]:
        return self.cell < self.token.size

    @property
    def mask(self) -> Bool[Array, "R W"]:
        return self.token < self.cell.shape[0]

    def to_grid(self, x: Float[Array, "T ..."]) -> Float[Array, "R W ..."]:
        """Tokens to their cells; empty cells hold zeros."""
        return move(x, self.token.reshape(-1), self.cell).reshape(*self.token.shape, *x.shape[1:])

    def to_tokens(self, x: Float[Array, "R W ..."]) -> Float[Array, "T ..."]:
        """The inverse of `to_grid`; the unused tail holds zeros."""
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
    def user(self) -> Int[Array, " T"]:
        """Row of every token; B in the unused tail."""
        return self.grid.cell // self.length

    @property
    def uid(self) -> Int[Array, " T"]:
        """Names every token within the whole batch: random draws are keyed by it."""
        return self.grid.cell + self.first_row * self.length

    def last(self, x: Float[Array, "T D"]) -> Float[Array, "B D"]:
        """The newest token of every row; zeros for a row without events."""
        return jnp.take(x, self.grid.token[:, -1], axis=0, mode="fill", fill_value=0)


def lay_out(mask: Bool[Array, "B L"], tokens: int, first_row: int | Int[Array, ""] = 0) -> Layout:
    """The layout of a left-padded grid. `tokens` is T: at least the number of true cells, or events are lost."""
    flat = mask.reshape(-1)
    (cell,) = jnp.nonzero(flat, size=tokens, fill_value=flat.size)
    token = jnp.where(flat, jnp.cumsum(flat) - 1, tokens).reshape(mask.shape)
    return Layout(Grid(cell, token), jnp.asarray(first_row, jnp.int32))


class Chunks(NamedTuple):
    """The token list cut into Z chunks of C >= L tokens: what a token may see is in its chunk or the one before.

    Users' tokens are neighbours, oldest first, at most L of them; so attention in chunks costs T x 2 C whatever the
    number of users, and nothing is moved.
    """

    size: int  # C
    seen: Bool[Array, "Z C M"]  # which of its M = 2 C keys each query sees: the same user's, up to itself

    def of(self, x: Shaped[Array, "T ..."]) -> Shaped[Array, "Z C ..."]:
        return _chunks(x, self.size, 0)

    def behind(self, x: Float[Array, "T ..."]) -> Float[Array, "Z M ..."]:
        """Every chunk with the one before it in front."""
        return _with_previous(self.of(x), 0)

    def tokens(self, x: Float[Array, "Z C ..."], count: int) -> Float[Array, "T ..."]:
        return x.reshape(-1, *x.shape[2:])[:count]

    @property
    def distance(self) -> Int[Array, "C M"]:
        """How many tokens each key stands behind its query; negative for later ones."""
        return self.size + jnp.arange(self.size)[:, None] - jnp.arange(2 * self.size)[None]


def chunks(layout: Layout) -> Chunks:
    """Chunks of L tokens, rounded up to a multiple of 16."""
    size = -(-layout.length // 16) * 16
    rows = layout.grid.token.shape[0]
    user = _chunks(layout.user, size, rows)
    same = user[:, :, None] == _with_previous(user, -1)[:, None]
    found = Chunks(size, same)
    return found._replace(seen=same & (found.distance >= 0)[None])


def _chunks(x, size: int, fill):
    count = -(-x.shape[0] // size)
    x = jnp.pad(x, ((0, count * size - x.shape[0]), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
    return x.reshape(count, size, *x.shape[1:])


def _with_previous(x, fill):
    previous = jnp.pad(x[:-1], ((1, 0), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
    return jnp.concatenate([previous, x], axis=1)


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
