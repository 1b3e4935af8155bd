"""Losses between two views of the same things: InfoNCE draws them together, CLUB takes what they share apart."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pad_jax.losses.mmd import cosine
from pad_jax.registry import SECTIONS
from pad_jax.settings import setting


@dataclass(frozen=True)
class InfoNCESettings:
    temperature: float = setting(0.1, "what cosines are divided by", "C", above=0)
    weight: float = setting(0.01, "weight in phase 2 of PAD; CTRL has nothing beside it", "C", least=0)


SECTIONS.register("infonce", InfoNCESettings)


def info_nce(
    query: Float[Array, "n D"], key: Float[Array, "n D"], mask: Bool[Array, " n"], temperature: float
) -> Float[Array, ""]:
    """-log softmax_j(cos(query_i, key_j) / temperature) at j = i, mean over the valid rows i; 0 without any.

    Valid rows are each other's negatives: they must be of different things.
    """
    logits = jnp.where(mask[None], cosine(query, key) / temperature, -jnp.inf)
    own = jnp.diagonal(logits)
    rows = jnp.where(mask, jax.nn.logsumexp(logits, axis=1) - jnp.where(mask, own, 0), 0)
    return rows.sum() / jnp.maximum(mask.sum(), 1)


def club(
    mean: Float[Array, "n D"], log_variance: Float[Array, "n D"], y: Float[Array, "n D"], mask: Bool[Array, " n"]
) -> Float[Array, ""]:
    """Upper bound of the mutual information of x and y under q(y|x) = N(mean, variance) (Cheng et al. 2020).

    Mean over i of sum_d [mean_j (y_j - mean_i)^2 - (y_i - mean_i)^2] / (2 variance_i), i and j over valid rows.
    """
    weight = mask.astype(y.dtype) / jnp.maximum(mask.sum(), 1)
    first, second = weight @ y, weight @ (y * y)
    others = second[None] - 2 * mean * first[None] + mean**2
    return weight @ ((others - (y - mean) ** 2) * jnp.exp(-log_variance) / 2).sum(axis=1)


def gaussian_nll(
    mean: Float[Array, "n D"], log_variance: Float[Array, "n D"], y: Float[Array, "n D"], mask: Bool[Array, " n"]
) -> Float[Array, ""]:
    """-log N(y; mean, variance) without its constant, summed over dimensions, mean over valid rows."""
    rows = ((y - mean) ** 2 * jnp.exp(-log_variance) + log_variance).sum(axis=1) / 2
    return jnp.where(mask, rows, 0).sum() / jnp.maximum(mask.sum(), 1)
