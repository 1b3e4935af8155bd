"""Losses between two views of the same things: InfoNCE and its soft form draw them together, CLUB takes what they
share apart."""

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


def soft_contrast(
    x: Float[Array, "n D"], y: Float[Array, "n D"], mask: Bool[Array, " n"], temperature: float
) -> Float[Array, ""]:
    """Cross entropy, from both sides, of <x_i, y_j> / temperature to how alike both views find i and j.

    With Q = softmax_rows(temperature (X X^T + Y Y^T) / 2) over the valid rows: the mean over i of half of

        - sum_j Q_ij log softmax_j(<x_i, y_j> / temperature) - sum_j Q_ji log softmax_j(<y_i, x_j> / temperature)

    Gradients flow through Q too. From the code of LLMEmb (Liu et al. 2025), as it is: rows of Q^T do not sum to one, so
    the second half is a weighted cross entropy. Without valid rows it is 0.
    """
    both = mask[:, None] & mask[None]

    def log_softmax(logits):
        return jax.nn.log_softmax(jnp.where(mask[None], logits, jnp.finfo(logits.dtype).min), axis=1)

    logits = x @ y.T / temperature
    target = jnp.where(both, jnp.exp(log_softmax(temperature * (x @ x.T + y @ y.T) / 2)), 0)
    rows = (target * log_softmax(logits) + target.T * log_softmax(logits.T)).sum(axis=1) / -2
    return jnp.where(mask, rows, 0).sum() / jnp.maximum(mask.sum(), 1)


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
