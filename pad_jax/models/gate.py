"""The frequency gate: how much each expert counts for an item, given how often training met it (Eq. 11)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Gate(nn.Module):
    """Weights of K experts for R items; they are positive and sum to one.

    `bucket`      sigmoid(a_k[b]) / sum_j sigmoid(a_j[b]), a table of scalars per bucket b (the official code)
    `bucket_emb`  the same with a small network of a bucket embedding and the expert's own item vector added to
                  a_k[b] (the paper's words for Eq. 11); it starts equal to `bucket`
    `shared`      every item in bucket 0: the paper's ablation without frequency
    `scalar`      softmax of one number per expert, the same for every item, even at the start: with two experts, one
                  sigmoid and what it leaves (method `make`)

    The tables start on straight lines over the buckets 0 (padding), 1 (warmest) .. (coldest): from `start` of ID,
    aligned and text; the first two fall by 1, text rises by 1.
    """

    experts: tuple[str, ...]
    buckets: int = 10
    kind: str = "bucket_emb"
    start: tuple[float, ...] = (1.0, 0.2, 0.0)
    width: int = 16

    @nn.compact
    def __call__(self, vectors: tuple[Float[Array, "R D"], ...], bucket: Int[Array, " R"]) -> Float[Array, "R K"]:
        if self.kind == "scalar":
            numbers = self.param("scalar", nn.initializers.zeros, (len(self.experts),))
            return jnp.broadcast_to(jax.nn.softmax(numbers), (len(bucket), len(self.experts)))
        starts = dict(zip(("id", "aligned", "text"), self.start, strict=True))
        if self.kind == "shared":
            bucket = jnp.zeros_like(bucket)
        logits = []
        for expert, vector in zip(self.experts, vectors, strict=True):
            start, step = starts[expert], 1.0 if expert == "text" else -1.0
            table = self.param(f"{expert}_bucket", lambda _, a=start, b=step: jnp.linspace(a, a + b, self.buckets + 1))
            logit = table[bucket]
            if self.kind == "bucket_emb":
                embedding = self.param(f"{expert}_embedding", nn.initializers.normal(), (self.buckets + 1, self.width))
                x = jnp.concatenate([embedding[bucket], vector], axis=-1)
                x = nn.gelu(nn.Dense(self.width, name=f"{expert}_hidden")(x), approximate=False)
                logit += nn.Dense(1, kernel_init=nn.initializers.zeros, name=f"{expert}_logit")(x)[:, 0]
            logits.append(logit)
        weights = jax.nn.sigmoid(jnp.stack(logits, axis=-1))
        return weights / weights.sum(axis=-1, keepdims=True)
