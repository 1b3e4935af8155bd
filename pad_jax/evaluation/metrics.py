"""HR, nDCG and MRR from ranks, for all users and by how often training met the target."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pad_jax.data.dataset import frequency_group


def hit_ratio(ranks: Float[np.ndarray, " U"], k: int) -> Float[np.ndarray, " U"]:
    """1 where rank <= k, per user."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: Float[np.ndarray, " U"], k: int) -> Float[np.ndarray, " U"]:
    """1 / log2(rank + 1) where rank <= k, per user: one relevant item, so the ideal gain is 1."""
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


def summarize(
    ranks: Float[np.ndarray, " U"],
    target_counts: Int[np.ndarray, " U"],
    target_buckets: Int[np.ndarray, " U"],
    ks: Sequence[int],
    buckets: int,
) -> dict[str, Any]:
    """Metrics as fractions, as `results.json` holds them; a group without users has null metrics."""
    groups = frequency_group(target_counts)
    return {
        **_metrics(ranks, ks),
        "by_frequency": {name: _metrics(ranks[mask], ks) for name, mask in groups.items()},
        "by_bucket": [_metrics(ranks[target_buckets == bucket], ks) for bucket in range(1, buckets + 1)],
    }


def _metrics(ranks: Float[np.ndarray, " U"], ks: Sequence[int]) -> dict[str, Any]:
    def mean(values):
        return float(values.mean()) if len(values) else None

    return {
        **{f"HR@{k}": mean(hit_ratio(ranks, k)) for k in ks},
        **{f"nDCG@{k}": mean(ndcg(ranks, k)) for k in ks},
        "MRR": mean(1 / ranks),
        "users": len(ranks),
    }
