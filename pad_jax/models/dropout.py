"""Dropout whose draws belong to the rows, not to the device that holds them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


def dropout(x: Float[Array, "R ..."], rate: float, key: PRNGKeyArray, uid: Int[Array, " R"]) -> Float[Array, "R ..."]:
    """Zeroes each value with probability `rate` and divides the rest by 1 - rate.

    The draws of a row depend on `key` and on the row's `uid` alone, so they are the same on any number of devices.
    Bits are 16 wide: the rate is kept to 1/65536, at half the cost of 32.
    """
    if rate == 0.0:
        return x
    keep = 1.0 - rate

    def bits(row: Int[Array, ""]):
        return jax.random.bits(jax.random.fold_in(key, row), x.shape[1:], jnp.uint16)

    kept = jax.vmap(bits)(uid) < jnp.uint16(round(keep * 65536))
    return jnp.where(kept, x / keep, 0).astype(x.dtype)
