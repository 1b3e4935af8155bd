"""Negatives: items that a user has not met, drawn without rejection."""

import jax
from jaxtyping import Array, Int, PRNGKeyArray


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
