"""SASRec as PAD uses it: a causal Transformer over the history (Kang and McAuley 2018)."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from pad_jax.batching.layout import Layout
from pad_jax.errors import UserError
from pad_jax.models.backbones import BACKBONES
from pad_jax.models.dropout import dropout, keep
from pad_jax.models.settings import products_in
from pad_jax.settings import Config, setting

xavier_normal = nn.initializers.xavier_normal()


@dataclass(frozen=True)
class SASRecSettings:
    blocks: int = setting(5, "self-attention blocks", "C", least=1, below=1025, was="model.blocks", best=2)
    heads: int = setting(2, "heads of each block", "C", least=1, below=1025, was="model.heads")
    ffn: int = setting(4, "feed-forward width", "C", unit="D", least=1, below=1025, was="model.ffn")
    norm: str = setting(
        "post",
        "where LayerNorm stands; post-norm stays with popularity on Prime Pantry, see the docs",
        "C; pre is [V]",
        choices=("post", "pre"),
        was="model.norm",
        paper="pre",
        best="pre",
    )
    scale: str = setting(
        "none",
        "what multiplies the history's vectors: sqrt is sqrt(D), the SASRec paper's",
        "C",
        choices=("none", "sqrt"),
    )

    def check(self, config: Config) -> None:
        if config.backbone == "sasrec" and config.model.width % self.heads:
            width = config.model.width
            raise UserError(f"config.model.width={width} does not divide by config.sasrec.heads={self.heads}")


class SASRec(nn.Module):
    """Learned positions, `blocks` self-attention blocks, a hidden state for every event.

    `norm="post"` is the official code of PAD: LayerNorm after each residual sum and on the input, none at the end.
    `norm="pre"` normalises the input of each sub-layer and the final state instead.

    Positions are the absolute slots of the left-padded window (the newest event is always in slot L-1). Q, K, V and
    O carry no bias; LayerNorm's epsilon is 1e-6. `scale="sqrt"` multiplies what comes in by sqrt(D), before positions
    are added, as the SASRec paper does.

    Differs: the SASRec paper has dropout between the two feed-forward layers, width D instead of 4 D, and normalises
    only the queries before attention.
    """

    blocks: int = 5
    heads: int = 2
    ffn: int = 4
    dropout: float = 0.1
    norm: str = "post"
    scale: str = "none"
    dtype: str | None = None  # of the matrix products; sums, norms and softmax are in the parameters' float32

    @nn.compact
    def __call__(self, x: Float[Array, "T D"], layout: Layout, train: bool) -> Float[Array, "T D"]:
        width = x.shape[-1]
        pre = self.norm == "pre"

        def drop(y):
            return dropout(y, self.dropout, self.make_rng("dropout"), layout.uid) if train else y

        def linear(features, name, use_bias=True):
            return nn.Dense(features, use_bias=use_bias, dtype=self.dtype, kernel_init=xavier_normal, name=name)

        def normed(y, name):
            return nn.LayerNorm(epsilon=1e-6, name=name)(y)

        positions = self.param("positions", xavier_normal, (layout.length, width))
        if self.scale == "sqrt":
            x = x * jnp.asarray(width**0.5, x.dtype)
        x = x + positions[layout.slot]
        x = drop(x if pre else normed(x, "norm_input"))
        for block in range(self.blocks):
            name = f"block_{block}"
            y = normed(x, f"{name}_norm_attention") if pre else x
            query, key, value = (linear(width, f"{name}_{part}", use_bias=False)(y) for part in ("q", "k", "v"))
            rng = self.make_rng("dropout") if train else None
            y = attend(query, key, value, layout, self.heads, self.dropout, rng)
            y = drop(linear(width, f"{name}_o", use_bias=False)(y))
            x = x + y if pre else normed(x + y, f"{name}_norm_attention")
            y = normed(x, f"{name}_norm_ffn") if pre else x
            y = nn.relu(linear(self.ffn * width, f"{name}_ffn_in")(y))
            y = drop(linear(width, f"{name}_ffn_out")(y))
            x = x + y if pre else normed(x + y, f"{name}_norm_ffn")
        return normed(x, "norm_output") if pre else x


def attend(
    query: Float[Array, "T D"],
    key: Float[Array, "T D"],
    value: Float[Array, "T D"],
    layout: Layout,
    heads: int,
    rate: float = 0.0,
    rng: PRNGKeyArray | None = None,
) -> Float[Array, "T D"]:
    """Softmax attention of every event over the events of its user up to itself.

    Args:
        query: of the events.
        key: likewise.
        value: likewise.
        layout: where each event stands.
        heads: the width is cut into as many.
        rate: share of the weights that training zeroes.
        rng: draws which; without it there is no dropout.
    """
    width = query.shape[-1]
    head = width // heads

    query, key, value = (layout.bins(y.reshape(-1, heads, head)) for y in (query, key, value))
    exact = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("zqhd,zkhd->zhqk", query, key, preferred_element_type=exact) / jnp.sqrt(head)
    weights = jax.nn.softmax(jnp.where(layout.seen[:, None], scores, -1e9), axis=-1)
    if rng is not None:
        row = layout.bins(layout.uid)[:, None, :, None]
        column = heads * layout.distance[None] + jnp.arange(heads)[:, None, None]
        weights = jnp.where(keep(rate, rng, row, column[None]), weights / (1 - rate), 0)
    return jnp.einsum("zhqk,zkhd->zqhd", weights.astype(value.dtype), value).reshape(-1, width)


def sasrec(config: Config) -> SASRec:
    """The backbone of a configuration."""
    s = config.sasrec
    return SASRec(s.blocks, s.heads, s.ffn, config.model.dropout, s.norm, s.scale, products_in(config))


BACKBONES.register("sasrec", sasrec, settings=SASRecSettings)
