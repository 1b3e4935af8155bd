"""Negatives: items that a user has not met, drawn without rejection."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray


def draw_negatives(
    key: PRNGKeyArray,
    uid: Int[Array, " T"],
    begin: Int[Array, " T"],
    end: Int[Array, " T"],
    gaps: Int[Array, " G"],
    items: int,
) -> Int[Array, " T"]:
    """One item per position, uniform over the items outside the user's training prefix, without rejection.

    Let s_1 < s_2 < .. be the distinct items of the prefix and gaps_j = s_j - j the number of other items before s_j.
    The r-th item outside the prefix, r = 0, 1, .., is 1 + r + #{j : gaps_j <= r}. The draw of a position depends on
    `key` and its `uid` alone.

    Args:
        key: of the step.
        uid: number of the position within the whole batch.
        begin: where the gaps of the position's user begin; they ascend.
        end: where they end.
        gaps: of all users, one behind the other, see `DeviceData`.
        items: N.

    Differs: the official code rejects and redraws; the distribution is the same.
    """
    outside = items - (end - begin)
    rank = jax.vmap(lambda row, high: jax.random.randint(jax.random.fold_in(key, row), (), 0, high))(uid, outside)

    def halve(bounds):
        """The first gap above `rank` lies in [low, high]."""
        low, high = bounds
        middle = (low + high) // 2
        after = (low < high) & (jnp.take(gaps, middle, mode="clip") <= rank)
        return jnp.where(after, middle + 1, low), jnp.where(after, high, middle)

    found, _ = jax.lax.while_loop(lambda bounds: (bounds[0] < bounds[1]).any(), halve, (begin, end))
    return 1 + rank + found - begin
