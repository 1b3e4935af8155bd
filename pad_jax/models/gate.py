"""Gates: how much each expert counts for an item, given how often training met it (Eq. 11)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pad_jax.errors import UserError
from pad_jax.models.experts import EXPERTS
from pad_jax.registry import SECTIONS, Registry
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class GateSettings:
    kind: str = setting("bucket_emb", "see models/gate.py", "P; bucket is [C]", choices="gate", official="bucket")
    start: tuple[float, ...] = setting(
        (1.0, 0.2, 0.0),
        "logits of ID, aligned and text at bucket 0; other experts bring their own",
        "C, gamma2 as in argparse",
        official=(1.0, -4.0, 0.0),
    )

    def check(self, config: Config) -> None:
        if len(self.start) != 3:
            raise UserError(f"config.gate.start must have 3 numbers (ID, aligned, text), not {self.start}")


SECTIONS.register("gate", GateSettings)


class FrequencyGate(nn.Module):
    """Weights of K experts for R items; they are positive and sum to one.

    sigmoid(a_k[b]) / sum_j sigmoid(a_j[b]), a table of scalars per bucket b. With `embedding`, a small network of a
    bucket embedding and the expert's own item vector is added to a_k[b]; it starts at zero. An expert without a vector
    has the bucket alone there. `blind` puts every item into bucket 0.

    The tables start on straight lines over the buckets 0 (padding), 1 (warmest) .. (coldest), which begin at `starts`
    and rise by the expert's `slope`.
    """

    starts: tuple[tuple[str, float], ...]  # of each expert, in their order
    buckets: int = 10
    embedding: bool = False
    blind: bool = False
    width: int = 16

    @nn.compact
    def __call__(self, vectors: tuple[Any, ...], bucket: Int[Array, " R"]) -> Float[Array, "R K"]:
        if self.blind:
            bucket = jnp.zeros_like(bucket)
        logits = []
        for (expert, start), vector in zip(self.starts, vectors, strict=True):
            end = start + EXPERTS[expert].slope
            table = self.param(f"{expert}_bucket", lambda _, a=start, b=end: jnp.linspace(a, b, self.buckets + 1))
            logit = table[bucket]
            if self.embedding:
                embedding = self.param(f"{expert}_embedding", nn.initializers.normal(), (self.buckets + 1, self.width))
                x = embedding[bucket]
                if vector is not None:
                    x = jnp.concatenate([x, vector], axis=-1)
                x = nn.gelu(nn.Dense(self.width, name=f"{expert}_hidden")(x), approximate=False)
                logit += nn.Dense(1, kernel_init=nn.initializers.zeros, name=f"{expert}_logit")(x)[:, 0]
            logits.append(logit)
        weights = jax.nn.sigmoid(jnp.stack(logits, axis=-1))
        return weights / weights.sum(axis=-1, keepdims=True)


class ScalarGate(nn.Module):
    """Softmax of one number per expert, the same for every item, even at the start: with two experts, one sigmoid and
    what it leaves (method `make`)."""

    experts: int

    @nn.compact
    def __call__(self, vectors: tuple[Any, ...], bucket: Int[Array, " R"]) -> Float[Array, "R K"]:
        numbers = self.param("scalar", nn.initializers.zeros, (self.experts,))
        return jnp.broadcast_to(jax.nn.softmax(numbers), (len(bucket), self.experts))


#: A gate is a function of the configuration and the experts' names that returns a module; the module's
#: `__call__(vectors, bucket [R])` returns weights [R, K]. `vectors` are those of each expert, [R, D] or None. A method
#: `of_users(counts [T])`, where there is one, returns weights [T, K] of the user sides, from how often training met the
#: newest item of each, and `of_items(counts [R])` weights [R] of the whole scores of items, from how often it met each.
#: Where there is a number `new`, the weights of an item that is added to a trained model are multiplied by it.
GATES: Registry[Callable[[Config, tuple[str, ...]], nn.Module]] = Registry("gate", "gate.kind")


def starts(config: Config, experts: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """The gate's logits at bucket 0: `gate.start` of the three of PAD, an expert's own of any other."""
    known = dict(zip(("id", "aligned", "text"), config.gate.start, strict=True))
    return tuple((expert, known.get(expert, EXPERTS[expert].start)) for expert in experts)


@GATES.register("bucket")
def bucket_gate(config: Config, experts: tuple[str, ...]) -> FrequencyGate:
    """The official code's."""
    return FrequencyGate(starts(config, experts), config.data.buckets)


@GATES.register("bucket_emb")
def bucket_embedding_gate(config: Config, experts: tuple[str, ...]) -> FrequencyGate:
    """The paper's words for Eq. (11).

    Differs: the paper's {h} is the behaviour sequence; here the gate reads the vector of the item that is scored.
    """
    return FrequencyGate(starts(config, experts), config.data.buckets, embedding=True)


@GATES.register("shared")
def shared_gate(config: Config, experts: tuple[str, ...]) -> FrequencyGate:
    """The paper's ablation without frequency: every item in bucket 0."""
    return FrequencyGate(starts(config, experts), config.data.buckets, blind=True)


@GATES.register("scalar")
def scalar_gate(config: Config, experts: tuple[str, ...]) -> ScalarGate:
    """One number per expert."""
    return ScalarGate(len(experts))
