"""Caser as PAD uses it: convolutions over the latest L events, without a user embedding (Tang and Wang 2018)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pad_jax.models.dropout import dropout
from pad_jax.models.layout import Layout


class Caser(nn.Module):
    """Every event sees the window of the L slots that end with it; empty slots are zero vectors.

    `vertical` filters weigh the L slots; `horizontal` filters of each height 1..L slide along them, ReLU, maximum
    over the window; both together go through dropout, a Linear to D and a ReLU.
    """

    horizontal: int = 2
    vertical: int = 2
    dropout: float = 0.1
    dtype: str | None = None  # of the convolution and the last product

    @nn.compact
    def __call__(self, x: Float[Array, "T D"], layout: Layout, train: bool) -> Float[Array, "T D"]:
        width, length = x.shape[-1], layout.length
        init = nn.initializers.xavier_normal()
        history = jnp.pad(layout.grid.to_grid(x), ((0, 0), (length - 1, 0), (0, 0)))  # B, 2 L - 1, D
        window = jnp.arange(length)[:, None] + jnp.arange(length)[None]  # window[t] = the L places that end with slot t

        weights = self.param("vertical", init, (length, self.vertical))
        bias = self.param("vertical_bias", nn.initializers.zeros, (self.vertical,))
        vertical = jnp.einsum("btsd,sv->btvd", history[:, window], weights) + bias[None, None, :, None]

        heights = jnp.repeat(jnp.arange(1, length + 1), self.horizontal)
        kernel = self.param("horizontal", _heights_init(heights), (length, width, len(heights)))
        kernel *= jnp.arange(length)[:, None, None] < heights[None, None]  # a filter of height h ends after h slots
        bias = self.param("horizontal_bias", nn.initializers.zeros, (len(heights),))
        padded = jnp.pad(history, ((0, 0), (0, length - 1), (0, 0)))  # so that every place starts a filter
        if self.dtype:
            padded, kernel = padded.astype(self.dtype), kernel.astype(self.dtype)
        slid = jax.lax.conv_general_dilated(padded, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))
        slid = nn.relu(slid + bias[None, None])[:, window]  # B, L (events), L (first slot of the filter), filters
        fits = jnp.arange(length)[:, None] + heights[None] <= length
        horizontal = jnp.where(fits[None, None], slid, 0).max(axis=2)  # ReLU makes 0 the least value

        y = jnp.concatenate([vertical.reshape(*vertical.shape[:2], -1), horizontal], axis=-1)
        y = layout.grid.to_tokens(y)
        if train:
            y = dropout(y, self.dropout, self.make_rng("dropout"), layout.uid)
        return nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=init, name="fc1")(y))


def _heights_init(heights):
    """Xavier-normal of each filter by its own height: the fan-in is height x D, the fan-out filters of that height."""

    def init(key, shape, dtype=jnp.float32):
        per_height = jnp.sum(heights[:, None] == heights[None], axis=1)
        deviation = jnp.sqrt(2.0 / (heights * shape[1] + heights * per_height))
        return jax.random.normal(key, shape, dtype) * deviation[None, None]

    return init
