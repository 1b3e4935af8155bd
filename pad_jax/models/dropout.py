"""Dropout whose draws belong to the rows, not to the device that holds them."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32


def dropout(x: Float[Array, "R ..."], rate: float, key: PRNGKeyArray, uid: Int[Array, " R"]) -> Float[Array, "R ..."]:
    """Zeroes each value with probability `rate` and divides the rest by 1 - rate; `uid` names the rows, see `keep`."""
    if rate == 0.0:
        return x
    shape = x.shape[1:]
    column = jnp.arange(math.prod(shape)).reshape(1, *shape)
    kept = keep(rate, key, uid.reshape(-1, *(1,) * len(shape)), column)
    return jnp.where(kept, x / (1.0 - rate), 0).astype(x.dtype)


def keep(rate: float, key: PRNGKeyArray, row: Int[Array, "..."], column: Int[Array, "..."]) -> Bool[Array, "..."]:
    """Which values stay, each with probability 1 - `rate` (kept to 2^-32); `row` and `column` broadcast.

    A draw depends on `key` and the numbers of its row and column alone, so it is the same on any number of devices.
    It is a hash of the three, computed where it is compared: with threefry, the default of `jax.random`, draws take a
    sixth of a training step on CPU, and dropout has no use for its strength.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    row = _mix(row.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) + first)
    bits = _mix(row ^ (column.astype(jnp.uint32) * jnp.uint32(0x85EBCA77) + second))
    return bits < jnp.uint32(min(round((1.0 - rate) * 2**32), 2**32 - 1))


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finalizer of MurmurHash3 (Appleby): every bit of the input moves every bit of the result."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
