"""What is done with item vectors of length 1: lists whose items differ, and items that are alike."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pad_jax.blocks import map_blocks, rows_that_fit

_LAST = -1e9  # relevance of what is no candidate


def diverse(
    scores: Float[Array, "n m"], vectors: Float[Array, "n m F"], k: int, diversity: Float[Array, ""]
) -> Int[Array, "n k"]:
    """Maximal marginal relevance: places of k of m candidates of n users, in the order in which they are picked.

    The next one has the largest (1 - d) r - d max_{picked j} <v, v_j>, r the score scaled to 0..1 over the candidates;
    ties go to the first. Scores fall from left to right, vectors have length 1; a score of -inf is picked last.
    """
    there = jnp.isfinite(scores)
    low = jnp.where(there, scores, jnp.inf).min(axis=1, keepdims=True)
    relevance = jnp.where(there, (scores - low) / jnp.maximum(scores[:, :1] - low, 1e-12), _LAST)
    row = jnp.arange(len(scores))

    def pick(carry, _):
        closest, left, place = carry
        similar = jnp.einsum("nmf,nf->nm", vectors, vectors[row, place])
        closest = jnp.maximum(closest, similar)
        left = left.at[row, place].set(False)
        value = (1 - diversity) * relevance - diversity * closest
        return (closest, left, jnp.where(left, value, -jnp.inf).argmax(axis=1)), place

    start = jnp.full(scores.shape, -jnp.inf), jnp.ones(scores.shape, bool), jnp.zeros(len(scores), int)
    return jax.lax.scan(pick, start, length=k)[1].T


@partial(jax.jit, static_argnames="k")
def nearest(directions: Float[Array, "I F"], number: Int[Array, " B"], offset: Float[Array, " I"], k: int):
    """The k items with the largest cosines of each of some items, and these; neither itself nor item 0."""

    def some(number):
        cosines = directions[number] @ directions.T
        cosines = jnp.where(jnp.isfinite(offset)[None], cosines, -jnp.inf)
        cosines = cosines.at[jnp.arange(len(number)), number].set(-jnp.inf).at[:, 0].set(-jnp.inf)
        best, found = jax.lax.top_k(cosines, k)
        return found, best

    return map_blocks(some, number, rows_that_fit(len(directions)))
