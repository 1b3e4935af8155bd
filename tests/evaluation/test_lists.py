"""Metrics of lists, each beside its definition in plain Python, and the lists themselves."""

import itertools
import math

import jax
import numpy as np
import pytest

from pad_jax.data.dataset import ItemLists
from pad_jax.errors import UserError
from pad_jax.evaluation.lists import Lists
from pad_jax.evaluation.metrics import METRICS, ListMetric, summarize
from pad_jax.evaluation.ranking import lister, ranker
from tests.support.data import small_config
from tests.support.steps import Setup

COUNTS = np.array([0, 9, 0, 4, 4, 1, 2, 70])
MET = np.array([1, 6, 10, 2])
TEXT = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32)
ITEMS = np.pad([[7, 1, 2], [1, 3, 0], [7, 4, 6], [5, 7, 1]], ((0, 0), (0, 4)))  # room for the seven items
TARGETS = [[1, 6], [3], [2, 4, 6], [2]]
LISTS = Lists(
    ITEMS, COUNTS, ItemLists(np.concatenate(TARGETS).astype(np.int32), np.cumsum([0, *map(len, TARGETS)])), TEXT
)


def shown(k):
    return [[int(i) for i in row[:k] if i] for row in ITEMS]


def cosine(a, b):
    return float(TEXT[a] @ TEXT[b] / np.linalg.norm(TEXT[a]) / np.linalg.norm(TEXT[b]))


def average_precision(row, wanted, k):
    hits = [place for place, item in enumerate(row, 1) if item in wanted]
    return sum((n / place) for n, place in enumerate(hits, 1)) / min(len(wanted), k)


def gini(k):
    """Mean absolute difference of all pairs over twice the mean."""
    counts = [sum(row.count(i) for row in shown(k)) for i in range(1, 8)]
    pairs = [abs(a - b) for a, b in itertools.product(counts, counts)]
    return np.mean(pairs) / 2 / np.mean(counts)


def diversity(k):
    return (
        [1 - np.mean([cosine(a, b) for a, b in itertools.combinations(row, 2)]) for row in shown(k)] if k > 1 else None
    )


EXPECTED = {
    "coverage": lambda k: len({i for row in shown(k) for i in row}) / 7,
    "Gini": gini,
    "novelty": lambda k: [np.mean([-math.log2((COUNTS[i] + 1) / 97) for i in row]) for row in shown(k)],
    "popularity": lambda k: [np.mean([COUNTS[i] for i in row]) for row in shown(k)],
    "diversity": diversity,
    "recall": lambda k: [len(set(row) & set(t)) / len(t) for row, t in zip(shown(k), TARGETS, strict=True)],
    "precision": lambda k: [len(set(row) & set(t)) / k for row, t in zip(shown(k), TARGETS, strict=True)],
    "MAP": lambda k: [average_precision(row, t, k) for row, t in zip(shown(k), TARGETS, strict=True)],
}


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("name", EXPECTED)
def test_metrics_of_lists(name, k):
    found, expected = METRICS[name].value(LISTS, k), EXPECTED[name](k)
    assert (found is None) == (expected is None)
    if found is not None:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_every_group_has_them():
    """Of its own users; recall and the like only where users have several targets."""
    ranks, target = np.array([2.0, 2.0, 9.0, 9.0]), np.array([1, 3, 2, 2])
    fields = {"eval.ks": (2, 10), "data.buckets": 2}
    found = summarize(small_config(**fields), ranks, target, COUNTS, MET, LISTS)
    assert found["coverage@2"] == EXPECTED["coverage"](2)
    assert found["by_frequency"]["unseen"]["coverage@2"] == len({7, 4, 5}) / 7
    np.testing.assert_allclose(
        found["by_frequency"]["unseen"]["diversity@2"], np.mean(EXPECTED["diversity"](2)[2:]), rtol=1e-5
    )
    assert found["by_frequency"]["warm"]["novelty@2"] is None
    assert "recall@2" not in found
    config = small_config(**fields, **{"eval.targets": "all", "data.time": (1, 2)})
    several = summarize(config, ranks, target, COUNTS, MET, LISTS)
    assert several["recall@2"] == np.mean(EXPECTED["recall"](2))
    assert several["by_frequency"]["median"]["MAP@2"] == np.mean(EXPECTED["MAP"](2)[0])
    assert "coverage@2" not in summarize(small_config(**fields), ranks, target, COUNTS, MET)


def test_an_own_metric_of_lists():
    METRICS.register("first", ListMetric(lambda lists, k: lists.items[:, :k].min(axis=1).astype(float)))
    METRICS.register("none", ListMetric(lambda lists, k: None))
    ranks, target = np.array([2.0, 2.0, 9.0, 9.0]), np.array([1, 3, 2, 2])
    found = summarize(small_config(), ranks, target, COUNTS, MET, LISTS)
    assert (found["first@1"], found["none@1"]) == (np.mean([7, 1, 7, 5]), None)
    METRICS.register("first", ListMetric(lambda lists, k: lists.items))
    with pytest.raises(UserError, match="'first' must give a number for each of 4 users"):
        summarize(small_config(), ranks, target, COUNTS, MET, LISTS)


@pytest.mark.slow
def test_lists_are_the_best_items_that_were_not_met(dataset, text):
    """All that ranks say: a target is in the list when its rank does, and no list holds what was met."""
    s = Setup(small_config(), dataset, text)
    scorer = s.scorer(s.phase("finetune"))
    params = jax.tree.map(np.asarray, s.fresh(s.phase("finetune")))
    split = dataset.split("test", 8)
    others = [split, dataset.split("valid", 8)]
    ranks, lists, over, _ = lister(scorer, 8, 30)(params, s.host, split, others, np.zeros((2, 31), np.float32), None)
    np.testing.assert_array_equal(ranks, ranker(scorer, 8)(params, s.host, split))
    np.testing.assert_array_equal(over, np.stack([ranks, ranks], axis=1))
    for user, row in enumerate(lists):
        met = set(split.history[user]) - {0}
        listed = [i for i in row if i]
        assert set(listed) == set(range(1, 31)) - met
        if split.target[user] not in met:
            assert abs(1 + listed.index(split.target[user]) - ranks[user]) <= 0.5
