"""Is a difference between two rankings of the same users more than chance?"""

import numpy as np
import scipy.stats
from jaxtyping import Float

RESAMPLES = 10_000


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
