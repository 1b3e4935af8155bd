"""A gate: experts that read text count the more, the colder an item is, along one line with two numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pad_jax.config import config_dict
from pad_jax.models.experts import EXPERTS
from pad_jax.models.gate import GATES


class LineGate(nn.Module):
    reads_text: tuple[bool, ...]
    buckets: int

    @nn.compact
    def __call__(self, vectors, bucket):
        warm = self.param("warm", nn.initializers.zeros, ())
        slope = self.param("slope", nn.initializers.ones, ())
        text = warm + slope * bucket / self.buckets
        logits = [text if reads else jnp.zeros_like(text) for reads in self.reads_text]
        return jax.nn.softmax(jnp.stack(logits, axis=-1))


@GATES.register("line")
def line_gate(config, experts):
    return LineGate(tuple(EXPERTS[expert].reads_text for expert in experts), config.data.buckets)


def get_config(job: str = "all"):
    config = config_dict("demo", job, recipe="best")
    config.gate.kind = "line"
    return config
