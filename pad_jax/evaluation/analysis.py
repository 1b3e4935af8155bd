"""What training did to distances between items (paper, section 4.3, Fig. 3, 6 and 7)."""

from collections.abc import Mapping

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Num

from pad_jax.data.dataset import Dataset, frequency_buckets

Pairs = tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]
MOST = 200_000
_BLOCK = 1 << 14


def pairs_by_bucket(dataset: Dataset, buckets: int, seed: int = 12345, most: int = MOST) -> Mapping[int, Pairs]:
    """Item pairs of each bucket b = 1..buckets, and of all of them under 0.

    For every user whose validation target is in the bucket: each training item with the target, and with one random
    item of the bucket that is not among the user's events. A bucket keeps at most `most` pairs, drawn at random.

    Differs: the paper speaks of all pairs of a behaviour and a target; these are the released code's, without pairs
    of an item with itself (targets that a user met before), whose distance is 0 in every table.
    """
    random = np.random.default_rng(seed)
    bucket, _ = frequency_buckets(dataset.counts, buckets)
    members = [np.flatnonzero(bucket == b) for b in range(buckets + 1)]
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(buckets + 1)]
    for begin, train_end, valid, end in zip(
        dataset.starts[:-1], dataset.cuts.train_end, dataset.cuts.valid, dataset.starts[1:], strict=True
    ):
        if valid < 0:
            continue
        events = dataset.events[begin:end]
        target, history = int(dataset.events[valid]), dataset.events[begin:train_end].astype(np.int64)
        history = history[history != target]
        pool = members[bucket[target]]
        others = pool[~np.isin(pool, events)]
        drawn = random.choice(others, len(history)) if len(others) else history[:0]
        first = np.concatenate([history, history[: len(drawn)]])
        found[bucket[target]].append((first, np.concatenate([np.full(len(history), target), drawn])))
    result: dict[int, Pairs] = {}
    for b in range(1, buckets + 1):
        first, second = (np.concatenate([p[side] for p in found[b]] or [members[b][:0]]) for side in (0, 1))
        chosen = np.sort(random.permutation(len(first))[:most])
        result[b] = first[chosen], second[chosen]
    everything = tuple(np.concatenate([result[b][side] for b in range(1, buckets + 1)]) for side in (0, 1))
    chosen = np.sort(random.permutation(len(everything[0]))[:most])
    result[0] = everything[0][chosen], everything[1][chosen]
    return result


def distances(table: Float[np.ndarray, "I X"], pairs: Pairs) -> Num[np.ndarray, " P"]:
    """Euclidean distances of the rows of each pair, a block of pairs at a time."""
    found = np.zeros(len(pairs[0]))
    for begin in range(0, len(found), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        found[block] = np.linalg.norm(table[pairs[0][block]].astype(np.float64) - table[pairs[1][block]], axis=1)
    return found


def kendall_tau(first: Num[np.ndarray, " P"], second: Num[np.ndarray, " P"]) -> float:
    """Kendall's tau-b of two lists (Eq. 13, which counts no ties); NaN for fewer than two entries."""
    return float(scipy.stats.kendalltau(first, second).statistic) if len(first) > 1 else float("nan")


def separation(reference: Num[np.ndarray, " P"], shown: Num[np.ndarray, " P"]) -> dict[str, float]:
    """How far `shown` tells the pairs of the largest 10 % of `reference` from those of the smallest 10 %.

    `gap`  difference of their means in standard deviations of all pairs
    `auc`  probability that a pair of the top has the larger distance, ties half
    `ks`   largest distance of their distribution functions

    NaN for fewer than 20 pairs.
    """
    if len(reference) < 20:
        return dict.fromkeys(("gap", "auc", "ks"), float("nan"))
    top, bottom = top_and_bottom(reference)
    deviation = shown.std()
    auc = scipy.stats.mannwhitneyu(shown[top], shown[bottom]).statistic / (len(top) * len(bottom))
    return {
        "gap": float((shown[top].mean() - shown[bottom].mean()) / deviation) if deviation > 0 else 0.0,
        "auc": float(auc),
        "ks": float(scipy.stats.ks_2samp(shown[top], shown[bottom]).statistic),
    }


def top_and_bottom(reference: Num[np.ndarray, " P"]) -> tuple[Int[np.ndarray, " Q"], Int[np.ndarray, " Q"]]:
    """Which entries are the largest and the smallest 10 %, at least one."""
    order = np.argsort(-reference, kind="stable")
    share = max(len(order) // 10, 1)
    return order[:share], order[-share:]
