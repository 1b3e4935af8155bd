"""Is a difference between two rankings of the same users more than chance?"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse
import scipy.stats
from jaxtyping import Bool, Float

RESAMPLES = 10_000
#: Standard errors from which a true difference is found with a chance of 80 % at a level of 5 %, by a test that stands
#: alone: 1.96 + 0.84.
POWER = 2.8
_DRAWN = 1 << 22  # users that are in memory at once


class Effect(NamedTuple):
    """A mean difference, its percentile interval, a two-sided p, the smallest difference that would be found, and how
    many users have any."""

    mean: float
    low: float
    high: float
    p: float
    least: float
    differ: int


def effect(difference: Float[np.ndarray, "S U"], level: float = 0.95, draws: int = RESAMPLES, seed: int = 0) -> Effect:
    """What is known of the mean of paired differences, of S seeds and U users, by `bootstrap_means`.

    p is twice the smaller share of draws at or beyond zero, and 1 / draws at least. Nor is it below 2^(1 - n) where n
    users have any difference, the least that flipping their signs could give: of few, draws alone would make too much.
    `least` is 2.8 standard errors. With one seed all of it is over users alone. Raises ValueError without a seed or a
    user.
    """
    if not difference.size:
        raise ValueError(f"differences of {difference.shape[0]} seeds and {difference.shape[1]} users")
    means = bootstrap_means(difference, draws, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    sides = float(np.mean(means <= 0)), float(np.mean(means >= 0))
    differ = int((difference != 0).any(axis=0).sum())
    p = min(1.0, max(2 * min(sides), 2.0 ** (1 - differ), 1 / draws))
    return Effect(float(difference.mean()), float(low), float(high), p, float(POWER * means.std()), differ)


def bootstrap_means(
    difference: Float[np.ndarray, "S U"], draws: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, " R"]:
    """The mean of S seeds and U users, both drawn with replacement and each draw's seeds crossed with its users.

    Users without any difference add nothing to a sum: only how many of the others are drawn, and which, is drawn.
    """
    random = np.random.default_rng(seed)
    seeds, users = difference.shape
    moved = difference[:, (difference != 0).any(axis=0)].T
    weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    counts = random.binomial(users, len(moved) / users, size=draws)
    means = np.zeros(draws)
    size = max(1, _DRAWN // max(1, len(moved)))
    for begin in range(0, draws if len(moved) else 0, size):
        part = slice(begin, begin + size)
        ends = np.concatenate([[0], np.cumsum(counts[part])])
        drawn = random.integers(len(moved), size=ends[-1])
        times = scipy.sparse.csr_matrix((np.ones(len(drawn)), drawn, ends), shape=(len(ends) - 1, len(moved)))
        means[part] = ((times @ moved) * weights[part]).sum(axis=1) / users
    return means


def group_regret(
    rows: Mapping[str, Float[np.ndarray, "S U"]], groups: Sequence[Bool[np.ndarray, " U"]], draws: int = 2000
) -> dict[str, tuple[float, float, float]]:
    """Of every row the mean over groups of (best row - own) / best row, and its 95 % interval.

    The interval is a percentile bootstrap that draws the users of each group and the seeds, for all rows the same. The
    best row is that of each draw: a lead that chance could have made costs the leader. A group in which every row has 0
    says nothing and is left out; NaN where none is left.
    """
    random = np.random.default_rng(0)
    table = np.array(list(rows.values()), np.float64).transpose(2, 0, 1)  # [U, N, S]
    _, count, seeds = table.shape
    weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    weights = np.concatenate([np.full((1, seeds), 1 / seeds), weights])
    regrets = []
    for users in groups:
        values = table[users].reshape(-1, count * seeds)
        if not values.any():
            continue
        size = len(values)
        times = [np.ones(size), *(np.bincount(random.integers(size, size=size), minlength=size) for _ in range(draws))]
        sums = np.stack([t @ values for t in times]).reshape(-1, count, seeds)
        sums = (sums * weights[:, None]).sum(axis=2)
        best = sums.max(axis=1, keepdims=True)
        regrets.append((best - sums) / np.where(best > 0, best, 1))
    found = np.mean(regrets, axis=0) if regrets else np.full((1 + draws, count), np.nan)
    ends = np.quantile(found[1:], [0.025, 0.975], axis=0)
    return dict(zip(rows, zip(found[0].tolist(), *ends.tolist(), strict=True), strict=True))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p of each test of a family, in its order: below a level where the step-down test rejects."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.asarray(p, np.float64)[order] * np.arange(len(p), 0, -1))
    found = np.empty(len(p))
    found[order] = np.minimum(steps, 1)
    return found.tolist()


def bootstrap_interval(
    difference: Float[np.ndarray, " U"], level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """(mean, low, high): percentile bootstrap over users of a per-user difference."""
    random = np.random.default_rng(seed)
    values, counts = np.unique(difference, return_counts=True)  # few distinct values: resample their counts
    draws = random.multinomial(len(difference), counts / len(difference), size=RESAMPLES) @ values / len(difference)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(difference.mean()), float(low), float(high)


def paired_t_test(first: Float[np.ndarray, " U"], second: Float[np.ndarray, " U"]) -> float:
    """Two-sided p of Student's t-test on per-user differences; 1 where there are none."""
    return float(scipy.stats.ttest_rel(first, second).pvalue) if (first != second).any() else 1.0
