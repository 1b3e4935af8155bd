"""Full ranking over all items, on the device, by counting."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pad_jax import parallel
from pad_jax.batching.device import DeviceData
from pad_jax.batching.layout import lay_out, pack
from pad_jax.blocks import map_blocks, rows_that_fit
from pad_jax.data.dataset import Split, without_targets
from pad_jax.evaluation.metrics import MOST_K
from pad_jax.models.scorer import Params, Scorer

_COLUMNS = 512  # scores of a user that are counted at once


def rank_by_counting(
    scores: Float[Array, "B I"],
    target: Int[Array, " B"],
    history: Int[Array, "B H"],
    offset: Float[Array, " I"] | None = None,
) -> Float[Array, " B"]:
    """The target's rank among items 1..N without the history: 1 + #higher + #equal / 2.

    `history` holds distinct items, 0 is padding. Column 0 of the scores is padding and takes no part. A target that
    stands in the history is masked like the rest of it: its rank is behind every candidate, and never one that any
    metric at k counts as a hit. So is that of a target whose score is NaN; any other item with NaN counts as higher.
    `offset` is added to the scores of every user, whose sums are never stored.
    """

    def of(items):
        found = jnp.take_along_axis(scores, items, axis=1)
        return found if offset is None else found + offset[items]

    own = of(target[:, None])
    met = history > 0

    def points(others):
        """2 for a higher score, 1 for an equal one."""
        return jnp.where(others <= own, (others == own).astype(jnp.int32), 2)

    seen = jnp.where(met, points(of(history)), 0)
    total = _sum_of_columns(points, scores, offset) - seen.sum(axis=1) - 1
    total -= points(of(jnp.zeros_like(target[:, None])))[:, 0]  # of padding
    masked = (met & (history == target[:, None])).any(axis=1) | jnp.isnan(own[:, 0])
    candidates = scores.shape[1] - 1 - met.sum(axis=1)
    return jnp.where(masked, jnp.maximum(candidates, MOST_K) + 1, 1 + total / 2)


def _sum_of_columns(function, x: Float[Array, "B I"], offset: Float[Array, " I"] | None) -> Int[Array, " B"]:
    """function(x + offset).sum(axis=1) of an elementwise function whose values are never stored.

    XLA makes one kernel of the two on GPUs. On CPU it would write all values to memory before it adds them, for longer
    than the product takes that made the scores; there, a few columns at a time are added up.
    """

    def some(begin, columns):
        part = jax.lax.dynamic_slice_in_dim(x, begin, columns, axis=1)
        return function(part if offset is None else part + jax.lax.dynamic_slice_in_dim(offset, begin, columns)[None])

    if not parallel.on_cpu():
        return some(0, x.shape[1]).sum(axis=1)
    columns = min(_COLUMNS, x.shape[1])
    blocks = x.shape[1] // columns

    def add(block, total):
        return total + some(block * columns, columns)

    total = jax.lax.fori_loop(0, blocks, add, jnp.zeros((len(x), columns), jnp.int32))
    return total.sum(axis=1) + some(blocks * columns, x.shape[1] - blocks * columns).sum(axis=1)


def inner_product(users: Float[Array, "B F"], items: Float[Array, "I F"]) -> Float[Array, "B I"]:
    """<user, item> of each user with all items."""
    return users @ items.T


def ranks_of(
    users: Any,
    items: Any,
    target: Int[Array, " B"],
    history: Int[Array, "B H"],
    rows: int,
    score: Callable[[Any, Any], Float[Array, "B I"]] = inner_product,
    offset: Float[Array, " I"] | None = None,
) -> Float[Array, " B"]:
    """`rank_by_counting` of the scores of users with all items, some users at a time.

    Args:
        users: arrays [B, ..] in a tree that `score` understands.
        items: the item side.
        target: each user's.
        history: each user's distinct items; 0 is padding.
        rows: users at a time, see `rows_that_fit`.
        score: from some users and all items to [B, I].
        offset: of each item, added to the scores.
    """

    def rank(part):
        user, target, history = part
        return rank_by_counting(score(user, items), target, history, offset)

    return map_blocks(rank, (users, target, history), rows)


class Ranked(NamedTuple):
    """Of U users: the rank of each one's target, the k best items (0 where there are too few), the rank under each of
    G offsets of the items, and the standard deviation of each one's scores over all items."""

    ranks: Float[np.ndarray, " U"]
    items: Int[np.ndarray, "U k"]
    over: Float[np.ndarray, "U G"]
    deviation: Float[np.ndarray, " U"]


def ranker(scorer: Scorer, batch: int) -> Callable[[Params, DeviceData, Split], Float[np.ndarray, " U"]]:
    """A function from (params, data, split) to the rank of every user's target; compiled once for each split.

    Users are spread over all devices, `batch` at a time on each; every rank is the user's own, so the result does
    not depend on either number.
    """

    found = _for_users(scorer, batch, ranks_of)
    return lambda params, data, split: found(params, data, split, [split])


def lister(scorer: Scorer, batch: int, k: int) -> Callable[..., Ranked]:
    """A function from (params, data, split, splits, offsets [G, I], offset [I] or None) to `Ranked`; compiled once for
    all `splits` of the same number of users and each kind of `offset`. See `ranker`.

    Every user is encoded and scored once. Ranks and items are those of the scores + `offset`, without the history.
    """

    def all_of(users, items, target, history, rows, score, offsets, offset):
        def some(part):
            user, target, history = part
            scores = score(user, items)
            over = jax.lax.map(lambda one: rank_by_counting(scores, target, history, one), offsets).T
            ranks = rank_by_counting(scores, target, history, offset)
            return ranks, _best(scores, history, offset, k), over, scores[:, 1:].std(axis=1)

        return map_blocks(some, (users, target, history), rows)

    found = _for_users(scorer, batch, all_of)
    return lambda *of: Ranked(*found(*of))


def _best(scores: Float[Array, "B I"], history: Int[Array, "B H"], offset: Any, k: int) -> Int[Array, "B k"]:
    """The items 1..N that are not in the history with the highest scores; 0 where there are too few."""
    scores = scores if offset is None else scores + offset[None]
    scores = scores.at[jnp.arange(len(history))[:, None], history].set(-jnp.inf).at[:, 0].set(-jnp.inf)
    best, found = jax.lax.top_k(scores, k)
    return jnp.where(jnp.isfinite(best), found, 0)


def states(scorer: Scorer, batch: int) -> Callable[[Params, DeviceData, Int[np.ndarray, "U L"]], dict[str, np.ndarray]]:
    """A function from (params, data, histories) to the user side of the score after each one's newest event, by expert.

    Histories are left-padded rows of item numbers. See `ranker`.
    """
    found = _for_users(scorer, batch, lambda users, *_: users)

    def of(params: Params, data: DeviceData, inputs: Int[np.ndarray, "U L"]) -> dict[str, np.ndarray]:
        split = without_targets(inputs)
        return found(params, data, split, [split])

    return of


def _for_users(scorer: Scorer, batch: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of (users, items, target, history, rows at a time, score) and what is the same for all users, for all
    users of one of `splits`, which have their shapes in common."""

    @jax.jit
    def catalogue(params: Params, data: DeviceData):
        vectors, gates = scorer.catalogue(params, data)
        return vectors, scorer.weighted(vectors, gates)

    @functools.partial(jax.pmap, axis_name=parallel.AXIS, in_axes=(None, 0, None), static_broadcasted_argnums=2)
    def on_device(shared, rows: tuple[Array, Array, Array, Array], tokens: int):
        params, counts, vectors, items, more = shared
        inputs, target, history, start = rows
        layout = lay_out(inputs > 0, start, tokens)
        ids = jnp.take(inputs.reshape(-1), layout.grid.cell, mode="fill", fill_value=0)
        users = scorer.users(params, jax.tree.map(lambda x: x[ids], vectors), layout, counts[ids])
        count = len(jax.tree.leaves(vectors)[0])
        score = functools.partial(scorer.scores, rows=count)
        users = jax.tree.map(layout.last, users)
        return function(users, items, target, history, rows_that_fit(count), score, *more)

    def packed(split: Split) -> tuple[np.ndarray, np.ndarray, int]:
        """Users of every part and device (-1 fills up), where each one's tokens begin, and the most tokens."""
        users, devices = len(split.target), parallel.devices()
        share = min(batch, -(-users // devices))
        parts = -(-users // (devices * share))
        lengths = (split.inputs > 0).sum(axis=1)
        # every device has users of all lengths in every part
        order = np.concatenate([np.argsort(lengths, kind="stable"), np.full(parts * devices * share - users, -1)])
        order = order.reshape(share, parts * devices).T
        start, bins = pack(np.where(order >= 0, lengths[order], 0), split.inputs.shape[1])
        tokens = max(int(bins.max()), 1) * split.inputs.shape[1]
        return order.reshape(parts, -1), start.reshape(parts, -1), tokens

    def over_users(params: Params, data: DeviceData, split: Split, splits: Sequence[Split], *more: Any) -> Any:
        params = parallel.as_global(params)
        shared = (params, jnp.asarray(data.counts), *catalogue(params, data), parallel.replicate(more))
        order, start, _ = packed(split)
        tokens = max(packed(other)[2] for other in splits)
        width = max(1, *(other.history.width for other in splits))
        parts = []
        for index, begin in zip(order, start, strict=True):
            there = index >= 0
            history = np.zeros((len(index), width), np.int32)
            history[there, : split.history.width] = split.history[index[there]]
            rows = np.where(there[:, None], split.inputs[index], 0), np.where(there, split.target[index], 0), history
            parts.append(parallel.map_rows(lambda s, r: on_device(s, r, tokens), shared, (*rows, begin)))
        place = np.argsort(order.reshape(-1), kind="stable")[-len(split.target) :]
        return jax.tree.map(lambda *x: np.concatenate(x)[place], *parts)

    return over_users
