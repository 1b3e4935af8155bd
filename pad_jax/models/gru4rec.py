"""GRU4Rec as PAD uses it: a GRU over the history and a linear map of its states (Hidasi et al. 2016)."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pad_jax.batching.layout import Layout
from pad_jax.models.backbones import BACKBONES
from pad_jax.models.dropout import dropout
from pad_jax.models.settings import products_in
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class GRU4RecSettings:
    hidden: int = setting(
        128,
        "width of the state",
        "RecBole's GRU4Rec, whose attribute names [C] has",
        least=1,
        below=1025,
        was="model.gru_hidden",
    )
    layers: int = setting(1, "GRU layers", "as hidden", least=1, below=1025, was="model.gru_layers")


class GRU4Rec(nn.Module):
    """Dropout on the inputs, `layers` GRU layers without bias, a Linear back to D.

    Differs: the official code runs the GRU over the left padding; here an empty slot leaves the zero state as it is.
    """

    hidden: int = 128
    layers: int = 1
    dropout: float = 0.1
    dtype: str | None = None  # of the matrix products over all positions; the recurrence is in float32

    @nn.compact
    def __call__(self, x: Float[Array, "T D"], layout: Layout, train: bool) -> Float[Array, "T D"]:
        width = x.shape[-1]
        if train:
            x = dropout(x, self.dropout, self.make_rng("dropout"), layout.uid)
        for layer in range(self.layers):
            gates = nn.Dense(
                3 * self.hidden,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                name=f"gru_{layer}_input",
            )(x).astype(x.dtype)
            recurrent = self.param(
                f"gru_{layer}_state", nn.initializers.xavier_uniform(), (self.hidden, 3 * self.hidden)
            )
            x = layout.grid.to_tokens(_recur(layout.grid.to_grid(gates), layout.grid.mask, recurrent))
        return nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.xavier_normal(), name="dense")(x)


def _recur(gates: Float[Array, "B L G"], mask, recurrent: Float[Array, "H G"]) -> Float[Array, "B L H"]:
    """h' = (1 - z) n + z h; r, z = sigmoid(W x + U h); n = tanh(W x + r U h). Empty slots keep h."""

    def step(state, slot):
        inputs, filled = slot
        reset_x, update_x, new_x = jnp.split(inputs, 3, axis=-1)
        reset_h, update_h, new_h = jnp.split(state @ recurrent, 3, axis=-1)
        reset, update = jax.nn.sigmoid(reset_x + reset_h), jax.nn.sigmoid(update_x + update_h)
        new = (1 - update) * jnp.tanh(new_x + reset * new_h) + update * state
        state = jnp.where(filled[:, None], new, state)
        return state, state

    start = jnp.zeros((gates.shape[0], recurrent.shape[0]), gates.dtype)
    _, states = jax.lax.scan(step, start, (gates.swapaxes(0, 1), mask.swapaxes(0, 1)))
    return states.swapaxes(0, 1)


def gru4rec(config: Config) -> GRU4Rec:
    """The backbone of a configuration."""
    return GRU4Rec(config.gru4rec.hidden, config.gru4rec.layers, config.model.dropout, products_in(config))


BACKBONES.register("gru4rec", gru4rec, settings=GRU4RecSettings)
