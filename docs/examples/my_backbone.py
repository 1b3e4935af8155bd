"""A backbone: an exponential moving average of the history with a decay for each dimension, and a linear layer."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from pad_jax.config import config_dict
from pad_jax.models.backbones import BACKBONES
from pad_jax.models.dropout import dropout
from pad_jax.settings import setting


@dataclass(frozen=True)
class AverageSettings:
    half_life: float = setting(3.0, "events after which a value has halved, at the start", unit="events", above=0)


class Average(nn.Module):
    half_life: float
    rate: float

    @nn.compact
    def __call__(self, x, layout, train):
        width = x.shape[-1]
        decay = jnp.exp2(-1 / self.half_life)
        logit = self.param("decay", lambda _: jnp.full(width, jnp.log(decay / (1 - decay))))
        decay = jax.nn.sigmoid(logit)

        def step(state, slot):
            value, filled = slot
            state = jnp.where(filled[:, None], decay[None] * state + (1 - decay)[None] * value, state)
            return state, state

        grid, mask = layout.grid.to_grid(x), layout.grid.mask  # [B, L, D], [B, L]: a row per user, oldest event first
        _, states = jax.lax.scan(step, jnp.zeros_like(grid[:, 0]), (grid.swapaxes(0, 1), mask.swapaxes(0, 1)))
        state = layout.grid.to_tokens(states.swapaxes(0, 1))
        if train:
            state = dropout(state, self.rate, self.make_rng("dropout"), layout.uid)
        return nn.Dense(width, name="out")(state)


@BACKBONES.register("average", settings=AverageSettings)
def average(config):
    return Average(config.average.half_life, config.model.dropout)


def get_config(job: str = "all"):
    return config_dict("demo", job, recipe="best", backbone="average")
