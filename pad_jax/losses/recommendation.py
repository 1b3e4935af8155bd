"""Recommendation losses over the T positions of a batch (L_REC of Eq. 1, 4, 6)."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pad_jax.blocks import in_blocks, rows_that_fit
from pad_jax.losses.mean import Mean, masked_mean


def binary_cross_entropy(positive: Float[Array, " T"], negative: Float[Array, " T"], valid: Bool[Array, " T"]) -> Mean:
    """BCE(positive, 1) + BCE(negative, 0), mean over valid positions (Eq. 1; it starts near 2 ln 2)."""
    return masked_mean(jax.nn.softplus(-positive) + jax.nn.softplus(negative), valid)


def cross_entropy(
    users: Float[Array, "T D"],
    items: Float[Array, "I D"],
    target: Int[Array, " T"],
    valid: Bool[Array, " T"],
    rows: int | None = None,
) -> Mean:
    """-log softmax over all N items (row 0, padding, takes no part), mean over valid positions.

    Logits of `rows` positions (see `rows_that_fit`) stand in memory at a time; none is kept for the backward pass.
    """
    users, weight = jnp.where(valid[:, None], users, 0), valid.astype(users.dtype)
    rows = rows or rows_that_fit(len(items))
    total = sum_of_logsumexp(rows, users, items[1:], weight) - jnp.vdot(users, items[target])
    return Mean(total, weight.sum())


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_of_logsumexp(
    rows: int, users: Float[Array, "T D"], items: Float[Array, "N D"], weight: Float[Array, " T"]
) -> Float[Array, ""]:
    """sum_t weight_t log sum_i exp <user_t, item_i>, `rows` positions at a time.

    The sum is linear in its positions, so its gradient (softmax @ items, softmax^T @ users) is taken block by block
    along with the value: three products of matrices, and nothing of [T, N] is stored or computed again. `weight` is
    a constant.
    """
    return _sum_and_gradients(rows, users, items, weight)[0]


def _sum_and_gradients(rows, users, items, weight):
    def add(carry, block):
        total, to_items = carry
        user, weight = block
        logits = user @ items.T
        highest = logits.max(axis=1)
        softmax = jnp.exp(logits - highest[:, None])
        mass = softmax.sum(axis=1)
        softmax *= (weight / mass)[:, None]
        return (total + jnp.vdot(weight, highest + jnp.log(mass)), to_items + softmax.T @ user), softmax @ items

    start = jnp.zeros((), users.dtype), jnp.zeros_like(items)
    (total, to_items), to_users = jax.lax.scan(add, start, in_blocks((users, weight), min(rows, len(users))))
    return total, (to_users.reshape(-1, users.shape[1])[: len(users)], to_items)


def _scale_gradients(rows, gradients, scale):
    del rows
    return *(scale * gradient for gradient in gradients), None


sum_of_logsumexp.defvjp(_sum_and_gradients, _scale_gradients)


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


def draw_negatives(key: PRNGKeyArray, uid: Int[Array, " T"], gaps: Int[Array, "T H"], items: int) -> Int[Array, " T"]:
    """One item per position, uniform over the items outside the user's training prefix, without rejection.

    Let s_1 < s_2 < .. be the distinct items of the prefix and gaps_j = s_j - j the number of other items before
    s_j (padded with N, see `history_gaps`). The r-th item outside the prefix, r = 0, 1, .., is
    1 + r + #{j : gaps_j <= r}. The draw of a position depends on `key` and its `uid` alone.

    Differs: the official code rejects and redraws; the distribution is the same.
    """
    outside = items - (gaps < items).sum(axis=1)
    rank = jax.vmap(lambda row, high: jax.random.randint(jax.random.fold_in(key, row), (), 0, high))(uid, outside)
    return 1 + rank + (gaps <= rank[:, None]).sum(axis=1)
