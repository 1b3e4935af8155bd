"""What a served model runs on the device: user vectors, ranks, scores of some items, and lists."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pad_jax.batching.layout import lay_out
from pad_jax.blocks import map_blocks, rows_that_fit
from pad_jax.evaluation.ranking import ranks_of
from pad_jax.models.scorer import Items, Params, Scorer
from pad_jax.serving.directions import diverse


@jax.jit(static_argnames=("scorer", "tokens"))
def users(scorer: Scorer, params: Params, vectors: dict[str, Any], counts, inputs, start, tokens) -> dict[str, Any]:
    """The user side of the score of left-padded rows of item numbers."""
    layout = lay_out(inputs > 0, start, tokens)
    ids = jnp.take(inputs.reshape(-1), layout.grid.cell, mode="fill", fill_value=0)
    vectors = jax.tree.map(lambda x: x[ids], vectors)
    return jax.tree.map(layout.last, scorer.users(params, vectors, layout, counts[ids]))


@partial(jax.jit, static_argnames="scorer")
def ranks(scorer: Scorer, users: dict[str, Any], items: Items, offset: Float[Array, " I"], target, met):
    """`ranks_of` of a batch of users."""
    count = len(offset)

    def score(users, items):
        return scorer.scores(users, items, count) + offset[None]

    return ranks_of(users, items, target, met, rows_that_fit(count), score)


def _parts(scorer: Scorer, users: dict[str, Any], items: Items, found: Int[Array, "n k"], count: int):
    """Each expert's part of the scores of some items: [n, k, K]."""
    parts, begin = [], 0
    for name in scorer.experts:
        if name in items.others:
            (other,) = scorer.others({name: users[name]}, Items(items.vectors, {name: items.others[name]}), count)
            parts.append(jnp.take_along_axis(other.block(users[name]), found, axis=1))
        else:
            width = users[name].shape[1]
            parts.append((users[name][:, None] * items.vectors[found, begin : begin + width]).sum(axis=-1))
            begin += width
    return jnp.stack(parts, axis=-1)


@partial(jax.jit, static_argnames=("scorer", "count"))
def scores(scorer: Scorer, users: dict[str, Any], items: Items, found: Int[Array, "B k"], count: int):
    """Of some items [B, k] for each user."""

    def some(part):
        users, found = part
        return _parts(scorer, users, items, found, count).sum(axis=-1)

    width = max(items.vectors.shape[1], 1)
    return map_blocks(some, (users, found), min(rows_that_fit(count), rows_that_fit(found.shape[1] * width)))


@partial(jax.jit, static_argnames=("scorer", "k", "pool"))
def top(
    scorer: Scorer,
    users: dict[str, Any],
    items: Items,
    says: Bool[Array, "I K"],
    offset: Float[Array, " I"],
    met: Int[Array, "B H"],
    only: Int[Array, "B A"],
    directions: Float[Array, "I F"],
    diversity: Float[Array, ""],
    k: int,
    pool: int,
):
    """Item numbers [B, k], scores, the expert with the largest part of each, of those that say anything of it, and the
    parts [B, k, K].

    `offset` is added to the scores of items. `met` is no candidate; item 0 is in every row of it. With A > 0 nothing
    but `only` is one. With `pool`, `diverse` picks the k among so many.
    """
    count = len(says)

    def some(part):
        users, met, only = part
        rows = jnp.arange(len(met))[:, None]
        scores = scorer.scores(users, items, count) + offset[None]
        if only.shape[1]:
            scores = jnp.where(jnp.zeros(scores.shape, bool).at[rows, only].set(True), scores, -jnp.inf)
        scores = scores.at[rows, met].set(-jnp.inf)
        best, found = jax.lax.top_k(scores, pool or k)
        if pool:
            picked = diverse(best, directions[found], k, diversity)
            best, found = (jnp.take_along_axis(x, picked, axis=1) for x in (best, found))
        parts = _parts(scorer, users, items, found, count)
        return found, best, jnp.where(says[found], parts, -jnp.inf).argmax(axis=-1), parts

    width = max(items.vectors.shape[1], 1)
    rows = min(rows_that_fit(count), rows_that_fit((pool or k) * width))
    return map_blocks(some, (users, met, only), rows)
