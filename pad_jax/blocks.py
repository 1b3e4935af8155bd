"""Work on a block of rows at a time, so that memory does not grow with their number."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def rows_that_fit(columns: int) -> int:
    """Rows of a product with `columns` columns that are worth having at once: 2^23 values, and 32 rows at least.

    More values leave the caches; a product with fewer rows is bound by reading its second factor.
    """
    return max((1 << 23) // columns, 32)


def in_blocks(tree: Any, rows: int) -> Any:
    """Arrays [n, ...] of a tree as [blocks, rows, ...]; zeros fill up the last block."""

    def split(x):
        x = jnp.asarray(x)
        missing = -len(x) % rows
        return jnp.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1))).reshape(-1, rows, *x.shape[1:])

    return jax.tree.map(split, tree)


def map_blocks(function: Callable[[Any], Any], tree: Any, rows: int) -> Any:
    """`function` of arrays [n, ...], row by row the same, on at most `rows` rows at a time."""
    count = len(jax.tree.leaves(tree)[0])
    if rows >= count:
        return function(tree)
    found = jax.lax.map(function, in_blocks(tree, rows))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], found)
