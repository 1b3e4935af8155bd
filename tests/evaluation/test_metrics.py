"""Metrics from ranks."""

import numpy as np
import pytest

from pad_jax.evaluation.metrics import hit_ratio, ndcg, summarize
from tests.support.data import small_config


def test_metrics():
    ranks = np.array([1.0, 2.5, 10.0, 10.5, 400.0])
    np.testing.assert_array_equal(hit_ratio(ranks, 10), [1, 1, 1, 0, 0])
    np.testing.assert_allclose(ndcg(ranks, 10), [1, 1 / np.log2(3.5), 1 / np.log2(11), 0, 0])
    counts = np.array([0, 60, 8, 0, 3, 4])
    result = summarize(
        small_config(**{"eval.ks": (5, 10), "data.buckets": 3}),
        ranks,
        np.array([1, 2, 3, 4, 5]),
        counts,
        np.array([1, 5, 6, 9, 10]),
    )
    assert {g: (m["users"], m["HR@10"]) for g, m in result["by_history"].items()} == {
        "short": (2, 1.0),
        "medium": (2, 0.5),
        "long": (1, 0.0),
    }
    assert result["HR@10"] == pytest.approx(0.6)
    assert result["HR@5"] == pytest.approx(0.4)
    assert result["MRR"] == pytest.approx(np.mean(1 / ranks))
    assert {g: m["users"] for g, m in result["by_frequency"].items()} == {
        "warm": 1,
        "median": 1,
        "cold": 2,
        "unseen": 1,
    }
    assert [m["users"] for m in result["by_bucket"]] == [1, 4, 0]
    assert result["by_bucket"][2]["HR@10"] is None
