"""Caser as PAD uses it: convolutions over the latest L events, without a user embedding (Tang and Wang 2018)."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pad_jax.batching.layout import Layout
from pad_jax.models.backbones import BACKBONES
from pad_jax.models.dropout import dropout
from pad_jax.models.settings import products_in
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class CaserSettings:
    horizontal: int = setting(2, "filters of each height", "C", least=1, was="model.caser_horizontal")
    vertical: int = setting(2, "filters over all slots", "C", least=1, was="model.caser_vertical")


class Caser(nn.Module):
    """Every event sees the window of the L slots that end with it; empty slots are zero vectors.

    `vertical` filters weigh the L slots; `horizontal` filters of each height 1..L slide along them, ReLU, maximum
    over the window; both together go through dropout, a Linear to D and a ReLU.
    """

    horizontal: int = 2
    vertical: int = 2
    dropout: float = 0.1
    dtype: str | None = None  # of the products with horizontal filters and of the last one

    @nn.compact
    def __call__(self, x: Float[Array, "T D"], layout: Layout, train: bool) -> Float[Array, "T D"]:
        width, length = x.shape[-1], layout.length
        init = nn.initializers.xavier_normal()
        grid = layout.grid.to_grid(x)

        weights = self.param("vertical", init, (length, self.vertical))
        bias = self.param("vertical_bias", nn.initializers.zeros, (self.vertical,))
        age = np.arange(length)[:, None] - np.arange(length)  # of slot u (columns) for the event of slot t
        band = jnp.where(age[..., None] >= 0, weights[length - 1 - abs(age)], 0)
        vertical = jnp.einsum("bud,tuv->btvd", grid, band) + bias[None, None, :, None]

        heights = np.repeat(np.arange(1, length + 1), self.horizontal)
        kernel = self.param("horizontal", _heights_init(heights), (length, width, len(heights)))
        kernel *= np.arange(length)[:, None, None] < heights  # a filter of height h ends after h slots
        bias = self.param("horizontal_bias", nn.initializers.zeros, (len(heights),))
        # products[b, u, j] = x[b, u] . kernel[L-1-j], of filters that begin in slot u+j-(L-1): column u+j of `slid`.
        # Written in lines of 2 L and read in lines of 2 L - 1, line u moves by u, and the sum over lines is `slid`.
        # A convolution would do the same, but within a loop XLA has only a slow one for CPUs.
        rows = kernel[::-1].transpose(1, 0, 2).reshape(width, -1)
        dtype = self.dtype or x.dtype
        products = jnp.matmul(x.astype(dtype), rows.astype(dtype), preferred_element_type=x.dtype)
        products = layout.grid.to_grid(products).reshape(-1, length, length, len(heights))
        lines = jnp.pad(products, ((0, 0), (0, 0), (0, length), (0, 0))).reshape(len(grid), -1, len(heights))
        slid = lines[:, : length * (2 * length - 1)].reshape(len(grid), length, 2 * length - 1, -1).sum(axis=1)
        window = np.arange(length)[:, None] + np.arange(length)  # window[t] = the L places that end with slot t
        slid = nn.relu(slid + bias[None, None])[:, window]  # B, L (events), L (first slot of the filter), filters
        fits = np.arange(length)[:, None] + heights <= length
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


def caser(config: Config) -> Caser:
    """The backbone of a configuration."""
    return Caser(config.caser.horizontal, config.caser.vertical, config.model.dropout, products_in(config))


BACKBONES.register("caser", caser, settings=CaserSettings)
