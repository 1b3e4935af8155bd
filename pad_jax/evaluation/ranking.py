"""Full ranking over all items, on the device, by counting."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pad_jax.data.batches import DeviceData
from pad_jax.data.dataset import Split
from pad_jax.models.layout import lay_out, pack
from pad_jax.models.scorer import Params, Scorer, vectors_of
from pad_jax.training import parallel


def rank_by_counting(
    scores: Float[Array, "B I"], target: Int[Array, " B"], history: Int[Array, "B H"]
) -> Float[Array, " B"]:
    """The target's rank among items 1..N without the history: 1 + #higher + #equal / 2.

    `history` holds distinct items, 0 is padding. Column 0 of the scores is padding and takes no part. A target that
    stands in the history is masked like the rest of it: its rank is one behind every candidate. So is that of a target
    whose score is NaN; any other item with NaN counts as higher.
    """
    own = jnp.take_along_axis(scores, target[:, None], axis=1)
    seen = jnp.take_along_axis(scores, history, axis=1)
    met = history > 0
    higher = (~(scores[:, 1:] <= own)).sum(axis=1) - (met & ~(seen <= own)).sum(axis=1)
    equal = (scores[:, 1:] == own).sum(axis=1) - (met & (seen == own)).sum(axis=1) - 1
    masked = (met & (history == target[:, None])).any(axis=1) | jnp.isnan(own[:, 0])
    candidates = scores.shape[1] - 1 - met.sum(axis=1)
    return jnp.where(masked, candidates + 1, 1 + higher + equal / 2)


def ranks_of(
    users: Float[Array, "B F"],
    items: Float[Array, "I F"],
    target: Int[Array, " B"],
    history: Int[Array, "B H"],
    block: int = 1 << 25,
) -> Float[Array, " B"]:
    """`rank_by_counting` of the scores <user, item>, of which at most `block` stand in memory at a time."""
    rows = min(max(block // len(items), 1), len(users))
    missing = -len(users) % rows

    def blocks(x):
        return jnp.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1))).reshape(-1, rows, *x.shape[1:])

    def rank(part):
        user, target, history = part
        return rank_by_counting(user @ items.T, target, history)

    return jax.lax.map(rank, tuple(map(blocks, (users, target, history)))).reshape(-1)[: len(users)]


def ranker(scorer: Scorer, batch: int) -> Callable[[Params, DeviceData, Split], Float[np.ndarray, " U"]]:
    """A function from (params, data, split) to the rank of every user's target; compiled once.

    Users are spread over all devices, `batch` at a time on each; every rank is the user's own, so the result does
    not depend on either number.
    """

    @jax.jit
    def catalogue(params: Params, data: DeviceData):
        everything = jnp.arange(data.bucket.shape[0])
        items = scorer.item_vectors(params, everything, data)
        return vectors_of(items), scorer.gated(params, items, jnp.asarray(data.bucket))

    @functools.partial(jax.pmap, axis_name=parallel.AXIS, in_axes=(None, 0, None), static_broadcasted_argnums=2)
    def ranks(shared, rows: tuple[Split, Array], tokens: int):
        params, vectors, gated = shared
        split, start = rows
        layout = lay_out(jnp.asarray(split.inputs) > 0, start, tokens)
        ids = jnp.take(split.inputs.reshape(-1), layout.grid.cell, mode="fill", fill_value=0)
        users = scorer.users(params, jax.tree.map(lambda x: x[ids], vectors), layout)
        return ranks_of(layout.last(users), gated, jnp.asarray(split.target), jnp.asarray(split.history))

    def rank(params: Params, data: DeviceData, split: Split) -> Float[np.ndarray, " U"]:
        params = parallel.as_global(params)
        shared = (params, *catalogue(params, data))
        users = len(split.target)
        step = min(batch * jax.device_count(), -(-users // jax.device_count()) * jax.device_count())
        parts = -(-users // step)
        lengths = (split.inputs > 0).sum(axis=1)
        # every part has users of all lengths; -1 fills up
        order = np.concatenate([np.argsort(lengths, kind="stable"), np.full(parts * step - users, -1)])
        order = order.reshape(step, parts).T
        held = np.where(order >= 0, lengths[order], 0).reshape(-1, step // jax.device_count())
        start, bins = pack(held, split.inputs.shape[1])
        tokens = max(int(bins.max()), 1) * split.inputs.shape[1]
        result = np.zeros(users, np.float32)
        for index, begin in zip(order, start.reshape(parts, step), strict=True):
            part = jax.tree.map(lambda x, i=index: np.where((i >= 0).reshape(-1, *(1,) * (x.ndim - 1)), x[i], 0), split)
            found = parallel.map_rows(lambda s, r: ranks(s, r, tokens), shared, (part, begin))
            result[index[index >= 0]] = found[index >= 0]
        return result

    return rank
