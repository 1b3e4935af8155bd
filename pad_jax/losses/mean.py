"""A mean that is still a sum and a count, so that devices can add theirs before they divide."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Mean(NamedTuple):
    """`total` over `entries`. The value of no entries is 0."""

    total: Float[Array, ""]
    entries: Float[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        return self.total / jnp.maximum(self.entries, 1)


def masked_mean(values: Float[Array, "..."], mask) -> Mean:
    """The mean of `values` where `mask` is true; what stands elsewhere does not matter, NaN included."""
    return Mean(jnp.where(mask, values, 0).sum(), mask.sum().astype(values.dtype))
