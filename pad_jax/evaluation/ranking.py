"""Full ranking over all items, on the device, by counting."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pad_jax import parallel
from pad_jax.batching.device import DeviceData
from pad_jax.batching.layout import lay_out, pack
from pad_jax.blocks import map_blocks, rows_that_fit
from pad_jax.data.dataset import ItemLists, Split
from pad_jax.evaluation.metrics import MOST_K
from pad_jax.models.scorer import Params, Scorer

_COLUMNS = 512  # scores of a user that are counted at once


def rank_by_counting(
    scores: Float[Array, "B I"], target: Int[Array, " B"], history: Int[Array, "B H"]
) -> Float[Array, " B"]:
    """The target's rank among items 1..N without the history: 1 + #higher + #equal / 2.

    `history` holds distinct items, 0 is padding. Column 0 of the scores is padding and takes no part. A target that
    stands in the history is masked like the rest of it: its rank is behind every candidate, and never one that any
    metric at k counts as a hit. So is that of a target whose score is NaN; any other item with NaN counts as higher.
    """
    own = jnp.take_along_axis(scores, target[:, None], axis=1)
    met = history > 0

    def points(others):
        """2 for a higher score, 1 for an equal one."""
        return jnp.where(others <= own, (others == own).astype(jnp.int32), 2)

    seen = jnp.where(met, points(jnp.take_along_axis(scores, history, axis=1)), 0)
    total = _sum_of_columns(points, scores) - points(scores[:, :1])[:, 0] - seen.sum(axis=1) - 1
    masked = (met & (history == target[:, None])).any(axis=1) | jnp.isnan(own[:, 0])
    candidates = scores.shape[1] - 1 - met.sum(axis=1)
    return jnp.where(masked, jnp.maximum(candidates, MOST_K) + 1, 1 + total / 2)


def _sum_of_columns(function, x: Float[Array, "B I"]) -> Int[Array, " B"]:
    """function(x).sum(axis=1) of an elementwise function whose values are never stored.

    XLA makes one kernel of the two on GPUs. On CPU it would write all values to memory before it adds them, for longer
    than the product takes that made the scores; there, a few columns at a time are added up.
    """
    if not parallel.on_cpu():
        return function(x).sum(axis=1)
    columns = min(_COLUMNS, x.shape[1])
    blocks = x.shape[1] // columns

    def add(block, total):
        return total + function(jax.lax.dynamic_slice_in_dim(x, block * columns, columns, axis=1))

    total = jax.lax.fori_loop(0, blocks, add, jnp.zeros((len(x), columns), jnp.int32))
    return total.sum(axis=1) + function(x[:, blocks * columns :]).sum(axis=1)


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
) -> Float[Array, " B"]:
    """`rank_by_counting` of the scores of users with all items, some users at a time.

    Args:
        users: arrays [B, ..] in a tree that `score` understands.
        items: the item side.
        target: each user's.
        history: each user's distinct items; 0 is padding.
        rows: users at a time, see `rows_that_fit`.
        score: from some users and all items to [B, I].
    """

    def rank(part):
        user, target, history = part
        return rank_by_counting(score(user, items), target, history)

    return map_blocks(rank, (users, target, history), rows)


def top_of(
    users: Any,
    items: Any,
    history: Int[Array, "B H"],
    rows: int,
    score: Callable[[Any, Any], Float[Array, "B I"]],
    k: int,
) -> Int[Array, "B k"]:
    """The items 1..N with the highest scores, some users at a time; 0 where there are too few.

    Args:
        users: arrays [B, ..] in a tree that `score` understands.
        items: the item side.
        history: each user's distinct items, which are left out; 0 is padding.
        rows: users at a time, see `rows_that_fit`.
        score: from some users and all items to [B, I].
        k: how many.
    """

    def top(part):
        user, history = part
        scores = score(user, items).at[jnp.arange(len(history))[:, None], history].set(-jnp.inf).at[:, 0].set(-jnp.inf)
        best, found = jax.lax.top_k(scores, k)
        return jnp.where(jnp.isfinite(best), found, 0)

    return map_blocks(top, (users, history), rows)


def ranker(scorer: Scorer, batch: int) -> Callable[[Params, DeviceData, Split], Float[np.ndarray, " U"]]:
    """A function from (params, data, split) to the rank of every user's target; compiled once for each split.

    Users are spread over all devices, `batch` at a time on each; every rank is the user's own, so the result does
    not depend on either number.
    """

    found = _for_users(scorer, batch, ranks_of)
    return lambda params, data, split: found(params, data, split, [split])


def lister(
    scorer: Scorer, batch: int, k: int
) -> Callable[[Params, DeviceData, Split, Sequence[Split]], tuple[np.ndarray, np.ndarray]]:
    """A function from (params, data, split, splits) to the rank of every user's target and the k best items of every
    user; compiled once for all `splits` of the same number of users. See `ranker`."""

    def both(users, items, target, history, rows, score):
        return ranks_of(users, items, target, history, rows, score), top_of(users, items, history, rows, score, k)

    return _for_users(scorer, batch, both)


def states(scorer: Scorer, batch: int) -> Callable[[Params, DeviceData, Int[np.ndarray, "U L"]], dict[str, np.ndarray]]:
    """A function from (params, data, histories) to the user side of the score after each one's newest event, by expert.

    Histories are left-padded rows of item numbers. See `ranker`.
    """
    found = _for_users(scorer, batch, lambda users, *_: users)

    def of(params: Params, data: DeviceData, inputs: Int[np.ndarray, "U L"]) -> dict[str, np.ndarray]:
        users = np.arange(len(inputs), dtype=np.int32)
        nothing = ItemLists(np.zeros(0, np.int32), np.zeros(len(inputs) + 1, np.int64))
        split = Split(users, inputs, np.zeros_like(users), nothing, nothing)
        return found(params, data, split, [split])

    return of


def _for_users(scorer: Scorer, batch: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of (users, items, target, history, rows at a time, score) for all users of one of `splits`, which have
    their shapes in common."""

    @jax.jit
    def catalogue(params: Params, data: DeviceData):
        vectors, gates = scorer.catalogue(params, data)
        return vectors, scorer.weighted(vectors, gates)

    @functools.partial(jax.pmap, axis_name=parallel.AXIS, in_axes=(None, 0, None), static_broadcasted_argnums=2)
    def on_device(shared, rows: tuple[Array, Array, Array, Array], tokens: int):
        params, vectors, items = shared
        inputs, target, history, start = rows
        layout = lay_out(inputs > 0, start, tokens)
        ids = jnp.take(inputs.reshape(-1), layout.grid.cell, mode="fill", fill_value=0)
        users = scorer.users(params, jax.tree.map(lambda x: x[ids], vectors), layout)
        count = len(jax.tree.leaves(vectors)[0])
        score = functools.partial(scorer.scores, rows=count)
        users = jax.tree.map(layout.last, users)
        return function(users, items, target, history, rows_that_fit(count), score)

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

    def over_users(params: Params, data: DeviceData, split: Split, splits: Sequence[Split]) -> Any:
        params = parallel.as_global(params)
        shared = (params, *catalogue(params, data))
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
