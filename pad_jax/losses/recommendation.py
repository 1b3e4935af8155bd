"""Recommendation losses over the T positions of a batch (L_REC of Eq. 1, 4, 6), and the logits that they are of."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pad_jax.blocks import in_blocks, rows_that_fit
from pad_jax.errors import UserError
from pad_jax.losses.mean import Mean, masked_mean
from pad_jax.registry import Registry
from pad_jax.settings import Config


class Scored(NamedTuple):
    """The part of the logits that one expert with a score of its own gives: gate_r * score(user_t, item_r).

    `users` and `items` are an array or a dictionary of arrays, their first axes T and R.
    """

    score: Callable[[Any, Any], Float[Array, "n m"]]
    users: Any
    items: Any
    gate: Float[Array, " R"]

    def block(self, users: Any) -> Float[Array, "n R"]:
        """Of some users with all items."""
        return self.gate[None] * self.score(users, self.items)

    def pairs(self, choose: Callable[[Any], Any]) -> Float[Array, " T"]:
        """Of every user with one item, which `choose` takes from arrays [R, ...]."""
        items, gate = jax.tree.map(choose, (self.items, self.gate))
        one = functools.partial(jax.tree.map, lambda x: x[None])
        return gate * jax.vmap(lambda user, item: self.score(one(user), one(item))[0, 0])(self.users, items)


@dataclass(frozen=True)
class Logits:
    """Logits of T positions for the R items of a step, made when a loss asks for them: <user_t, item_r> + `others`.

    With a loss over the catalogue, R = N + 1 and row r is item r.
    """

    users: Float[Array, "T X"]
    items: Float[Array, "R X"]
    others: tuple[Scored, ...]
    target: Int[Array, " T"]  # item numbers, 0 where a position is not valid
    valid: Bool[Array, " T"]
    of_targets: Callable[[Any], Any]  # arrays [R, ...] -> [T, ...], the targets' rows
    drawn_row: Int[Array, " S"]  # where each drawn item stands among the R
    drawn_ids: Int[Array, " S"]
    catalogue: int  # N
    needs: str  # of the loss, see `Loss`

    def positive(self) -> Float[Array, " T"]:
        """Of every position's target."""
        own = jnp.sum(self.users * self.of_targets(self.items), axis=-1)
        return sum((other.pairs(self.of_targets) for other in self.others), own)

    def negative(self) -> Float[Array, " T"]:
        """Of the item drawn against every position's target, with a loss of `needs="negatives"`."""
        self._check("negative", "negatives")
        own = jnp.sum(self.users * self.items[self.drawn_row], axis=-1)
        return sum((other.pairs(lambda x: x[self.drawn_row]) for other in self.others), own)

    def drawn(self) -> Float[Array, "T S"]:
        """Of the S items drawn for the whole step, with a loss of `needs="samples"`."""
        self._check("drawn", "samples")
        total = self.users @ self.items[self.drawn_row].T
        for other in self.others:
            some = other._replace(items=jax.tree.map(lambda x: x[self.drawn_row], other.items))
            total += some._replace(gate=other.gate[self.drawn_row]).block(other.users)
        return total

    def over_catalogue(self, function: Callable[[Float[Array, "n N"], Int[Array, " n"]], Float[Array, " n"]]) -> Mean:
        """The mean over valid positions of function(logits of all items, column of the target), by blocks.

        Column c is item c + 1; `needs="catalogue"`. Logits of some positions stand in memory at a time (see
        `rows_that_fit`), and are computed again for the backward pass.
        """
        self._check("over_catalogue", "catalogue")
        rows = min(rows_that_fit(len(self.items)), len(self.valid))
        weight = self.valid.astype(self.users.dtype)

        @jax.checkpoint
        def add(total, block):
            users, theirs, target, weight = block
            logits = users @ self.items.T
            for other, part in zip(self.others, theirs, strict=True):
                logits += other.block(part)
            values = function(logits[:, 1:], jnp.maximum(target - 1, 0))
            if values.shape != weight.shape:
                raise UserError(
                    f"a loss over the catalogue must give {weight.shape} values, one a row, not {values.shape}"
                )
            return total + jnp.vdot(weight, values), None

        parts = self.users, tuple(other.users for other in self.others), self.target, weight
        return Mean(jax.lax.scan(add, jnp.zeros((), self.users.dtype), in_blocks(parts, rows))[0], weight.sum())

    def _check(self, asked: str, needs: str) -> None:
        if self.needs != needs:
            raise UserError(f"a loss that asks for logits.{asked} must be registered with needs={needs!r}")


class Loss(NamedTuple):
    """A recommendation loss of `Logits` and the configuration, and which items it needs beside the targets.

    `negatives` one item for each position, `samples` `train.sampled` items for the whole step, `catalogue` all items.
    """

    value: Callable[[Logits, Config], Mean]
    needs: str


def _known_needs(name: str, loss: Loss, _: Any) -> None:
    if loss.needs not in ("negatives", "samples", "catalogue"):
        raise UserError(f"the loss {name!r} needs {loss.needs!r}: it must be negatives, samples or catalogue")


LOSSES: Registry[Loss] = Registry("loss", "loss", _known_needs)


def binary_cross_entropy(positive: Float[Array, " T"], negative: Float[Array, " T"], valid: Bool[Array, " T"]) -> Mean:
    """BCE(positive, 1) + BCE(negative, 0), mean over valid positions (Eq. 1; it starts near 2 ln 2)."""
    return masked_mean(jax.nn.softplus(-positive) + jax.nn.softplus(negative), valid)


def cross_entropy(
    users: Float[Array, "T D"],
    items: Float[Array, "I D"],
    target: Int[Array, " T"],
    valid: Bool[Array, " T"],
    rows: int | None = None,
) -> Mean:
    """-log softmax over all N items, mean over valid positions.

    Args:
        users: of T positions.
        items: of the catalogue; row 0, padding, takes no part.
        target: item numbers.
        valid: positions that count.
        rows: positions whose logits stand in memory at a time, see `rows_that_fit`; none is kept for the backward pass.
    """
    users, weight = jnp.where(valid[:, None], users, 0), valid.astype(users.dtype)
    rows = rows or rows_that_fit(len(items))
    total = sum_of_logsumexp(rows, users, items[1:], weight) - jnp.vdot(users, items[target])
    return Mean(total, weight.sum())


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_of_logsumexp(
    rows: int, users: Float[Array, "T D"], items: Float[Array, "N D"], weight: Float[Array, " T"]
) -> Float[Array, ""]:
    """sum_t weight_t log sum_i exp <user_t, item_i>, `rows` positions at a time.

    The sum is linear in its positions, so its gradient (softmax @ items, softmax^T @ users) is taken block by block
    along with the value: three products of matrices, and nothing of [T, N] is stored or computed again. `weight` is
    a constant.
    """
    return _sum_and_gradients(rows, users, items, weight)[0]


def _sum_and_gradients(rows, users, items, weight):
    def add(carry, block):
        total, to_items = carry
        user, weight = block
        logits = user @ items.T
        highest = logits.max(axis=1)
        softmax = jnp.exp(logits - highest[:, None])
        mass = softmax.sum(axis=1)
        softmax *= (weight / mass)[:, None]
        return (total + jnp.vdot(weight, highest + jnp.log(mass)), to_items + softmax.T @ user), softmax @ items

    start = jnp.zeros((), users.dtype), jnp.zeros_like(items)
    (total, to_items), to_users = jax.lax.scan(add, start, in_blocks((users, weight), min(rows, len(users))))
    return total, (to_users.reshape(-1, users.shape[1])[: len(users)], to_items)


def _scale_gradients(rows, gradients, scale):
    del rows
    return *(scale * gradient for gradient in gradients), None


sum_of_logsumexp.defvjp(_sum_and_gradients, _scale_gradients)


def sampled_softmax(
    positive: Float[Array, " T"],
    drawn: Float[Array, "T S"],
    target: Int[Array, " T"],
    drawn_ids: Int[Array, " S"],
    items: int,
    valid: Bool[Array, " T"],
) -> Mean:
    """-log softmax of the target among itself and S items drawn uniformly from 1..N, mean over valid positions.

    Logits of the drawn items are raised by log((N - 1) / S), which makes the sum a consistent estimate of the full
    softmax (Jean et al. 2015); a drawn item that is the target is left out.

    Args:
        positive: logits of the targets.
        drawn: logits of the drawn items.
        target: item numbers of the targets.
        drawn_ids: item numbers of the drawn items.
        items: N.
        valid: positions that count.
    """
    logits = drawn + jnp.log((items - 1) / len(drawn_ids))
    logits = jnp.where(drawn_ids[None] == target[:, None], -jnp.inf, logits)
    return masked_mean(jax.nn.logsumexp(jnp.column_stack([positive, logits]), axis=1) - positive, valid)


def _cross_entropy_of(logits: Logits, _: Config) -> Mean:
    if logits.others:
        return logits.over_catalogue(
            lambda x, column: jax.nn.logsumexp(x, axis=1) - jnp.take_along_axis(x, column[:, None], axis=1)[:, 0]
        )
    return cross_entropy(logits.users, logits.items, logits.target, logits.valid)


def _sampled_softmax_of(logits: Logits, _: Config) -> Mean:
    drawn = logits.positive(), logits.drawn()
    return sampled_softmax(*drawn, logits.target, logits.drawn_ids, logits.catalogue, logits.valid)


LOSSES.register("bce", Loss(lambda x, _: binary_cross_entropy(x.positive(), x.negative(), x.valid), "negatives"))
LOSSES.register("ce", Loss(_cross_entropy_of, "catalogue"))
LOSSES.register("sampled_softmax", Loss(_sampled_softmax_of, "samples"))
