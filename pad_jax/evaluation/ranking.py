"""Full ranking over all items, on the device, by counting."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pad_jax import parallel
from pad_jax.batching.device import DeviceData
from pad_jax.batching.layout import lay_out, pack
from pad_jax.blocks import map_blocks, rows_that_fit
from pad_jax.data.dataset import Split
from pad_jax.models.scorer import Params, Scorer

_COLUMNS = 512  # scores of a user that are counted at once


def rank_by_counting(
    scores: Float[Array, "B I"], target: Int[Array, " B"], history: Int[Array, "B H"]
) -> Float[Array, " B"]:
    """The target's rank among items 1..N without the history: 1 + #higher + #equal / 2.

    `history` holds distinct items, 0 is padding. Column 0 of the scores is padding and takes no part. A target that
    stands in the history is masked like the rest of it: its rank is one behind every candidate. So is that of a target
    whose score is NaN; any other item with NaN counts as higher.
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
    return jnp.where(masked, candidates + 1, 1 + total / 2)


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


def ranker(scorer: Scorer, batch: int) -> Callable[[Params, DeviceData, Split], Float[np.ndarray, " U"]]:
    """A function from (params, data, split) to the rank of every user's target; compiled once for each split.

    Users are spread over all devices, `batch` at a time on each; every rank is the user's own, so the result does
    not depend on either number.
    """

    @jax.jit
    def catalogue(params: Params, data: DeviceData):
        vectors, gates = scorer.catalogue(params, data)
        return vectors, scorer.weighted(vectors, gates)

    @functools.partial(jax.pmap, axis_name=parallel.AXIS, in_axes=(None, 0, None), static_broadcasted_argnums=2)
    def ranks(shared, rows: tuple[Split, Array], tokens: int):
        params, vectors, items = shared
        split, start = rows
        layout = lay_out(jnp.asarray(split.inputs) > 0, start, tokens)
        ids = jnp.take(split.inputs.reshape(-1), layout.grid.cell, mode="fill", fill_value=0)
        users = scorer.users(params, jax.tree.map(lambda x: x[ids], vectors), layout)
        count = len(jax.tree.leaves(vectors)[0])
        score = functools.partial(scorer.scores, rows=count)
        target, history = jnp.asarray(split.target), jnp.asarray(split.history)
        return ranks_of(jax.tree.map(layout.last, users), items, target, history, rows_that_fit(count), score)

    def rank(params: Params, data: DeviceData, split: Split) -> Float[np.ndarray, " U"]:
        params = parallel.as_global(params)
        shared = (params, *catalogue(params, data))
        users = len(split.target)
        devices = parallel.devices()
        share = min(batch, -(-users // devices))
        parts = -(-users // (devices * share))
        lengths = (split.inputs > 0).sum(axis=1)
        # every device has users of all lengths in every part; -1 fills up
        order = np.concatenate([np.argsort(lengths, kind="stable"), np.full(parts * devices * share - users, -1)])
        order = order.reshape(share, parts * devices).T
        held = np.where(order >= 0, lengths[order], 0)
        start, bins = pack(held, split.inputs.shape[1])
        tokens = max(int(bins.max()), 1) * split.inputs.shape[1]
        result = np.zeros(users, np.float32)
        for index, begin in zip(order.reshape(parts, -1), start.reshape(parts, -1), strict=True):
            part = jax.tree.map(lambda x, i=index: np.where((i >= 0).reshape(-1, *(1,) * (x.ndim - 1)), x[i], 0), split)
            found = parallel.map_rows(lambda s, r: ranks(s, r, tokens), shared, (part, begin))
            result[index[index >= 0]] = found[index >= 0]
        return result

    return rank
