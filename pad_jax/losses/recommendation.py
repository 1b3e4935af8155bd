"""Recommendation losses over the T positions of a batch (L_REC of Eq. 1, 4, 6)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pad_jax.losses.mean import Mean, masked_mean


def binary_cross_entropy(positive: Float[Array, " T"], negative: Float[Array, " T"], valid: Bool[Array, " T"]) -> Mean:
    """BCE(positive, 1) + BCE(negative, 0), mean over valid positions (Eq. 1; it starts near 2 ln 2)."""
    return masked_mean(jax.nn.softplus(-positive) + jax.nn.softplus(negative), valid)


def cross_entropy(
    users: Float[Array, "T D"],
    items: Float[Array, "I D"],
    target: Int[Array, " T"],
    valid: Bool[Array, " T"],
) -> Mean:
    """-log softmax over all N items (row 0, padding, takes no part), mean over valid positions."""
    logits = users @ items.T
    logits = jnp.where((jnp.arange(items.shape[0]) == 0)[None], -jnp.inf, logits)
    picked = jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]
    picked = jnp.where(valid, picked, 0)
    return masked_mean(jax.nn.logsumexp(logits, axis=1) - picked, valid)


def sampled_softmax(
    users: Float[Array, "T D"],
    positive: Float[Array, "T D"],
    negatives: Float[Array, "S D"],
    target: Int[Array, " T"],
    sampled: Int[Array, " S"],
    items: int,
    valid: Bool[Array, " T"],
) -> Mean:
    """-log softmax of the target among itself and S items drawn uniformly from 1..N, mean over valid positions.

    Logits of the drawn items are raised by log((N - 1) / S), which makes the sum a consistent estimate of the full
    softmax (Jean et al. 2015); a drawn item that is the target is left out.
    """
    own = jnp.sum(users * positive, axis=-1)
    logits = users @ negatives.T + jnp.log((items - 1) / sampled.shape[0])
    logits = jnp.where(sampled[None] == target[:, None], -jnp.inf, logits)
    return masked_mean(jax.nn.logsumexp(jnp.column_stack([own, logits]), axis=1) - own, valid)


def draw_negatives(key: PRNGKeyArray, uid: Int[Array, " T"], gaps: Int[Array, "T W"], items: int) -> Int[Array, " T"]:
    """One item per position, uniform over the items outside the user's training prefix, without rejection.

    Let s_1 < s_2 < .. be the distinct items of the prefix and gaps_j = s_j - j the number of other items before
    s_j (padded with N, see `history_gaps`). The r-th item outside the prefix, r = 0, 1, .., is
    1 + r + #{j : gaps_j <= r}. The draw of a position depends on `key` and its `uid` alone.

    Differs: the official code rejects and redraws; the distribution is the same.
    """
    outside = items - (gaps < items).sum(axis=1)
    rank = jax.vmap(lambda row, high: jax.random.randint(jax.random.fold_in(key, row), (), 0, high))(uid, outside)
    return 1 + rank + (gaps <= rank[:, None]).sum(axis=1)
