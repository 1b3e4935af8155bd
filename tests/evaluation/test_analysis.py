"""What is measured on trained tables: distances of items that go together, and how two orders agree."""

import numpy as np
import pytest

from pad_jax.data.dataset import frequency_buckets, from_sequences
from pad_jax.evaluation.analysis import distances, kendall_tau, pairs_by_bucket, separation
from pad_jax.evaluation.significance import paired_t_test


def test_kendall_tau_and_separation():
    assert kendall_tau(np.arange(1, 6), np.array([1, 3, 2, 5, 4])) == pytest.approx(0.6)
    assert kendall_tau(np.array([1, 1, 2, 3]), np.array([1, 2, 2, 3])) == pytest.approx(0.8)
    assert np.isnan(kendall_tau(np.zeros(1), np.zeros(1)))
    random = np.random.default_rng(0)
    reference = random.random(1000)
    same = separation(reference, 5 * reference + 1)
    assert same["auc"] == same["ks"] == 1
    assert same["gap"] > 2
    other = separation(reference, random.random(1000))
    assert abs(other["auc"] - 0.5) < 0.15
    assert separation(reference, -reference)["auc"] == 0
    assert np.isnan(separation(reference[:19], reference[:19])["auc"])


def test_pairs_are_a_users_items_with_targets_and_others_of_the_bucket(dataset):

    pairs = pairs_by_bucket(dataset, 3)
    bucket, _ = frequency_buckets(dataset.counts, 3)
    for b in (1, 2, 3):
        assert (bucket[pairs[b][1]] == b).all()
    expected = []
    for u in range(dataset.users):
        events = dataset.events[dataset.starts[u] : dataset.starts[u + 1]]
        expected += [(i, events[-2]) for i in events[:-2] if i != events[-2]]
    assert len(pairs[0][0]) == 2 * len(expected)
    assert set(expected) <= set(zip(*pairs[0], strict=True))
    again = pairs_by_bucket(dataset, 3)
    np.testing.assert_array_equal(pairs[0][1], again[0][1])
    assert len(pairs_by_bucket(dataset, 3, most=5)[1][0]) == 5


def test_drawn_items_are_none_that_the_user_met():
    """Item 6 is the only one left for the first user, and none is for the second."""
    items = [f"i{i}" for i in range(6)]
    data = from_sequences("two", items, items, ["u", "v"], [[1, 2, 3, 4, 5], [6, 5, 4, 3, 2, 1]])
    first, second = pairs_by_bucket(data, 1)[1]
    assert list(zip(first[:6].tolist(), second[:6].tolist(), strict=True)) == [
        *((i, 4) for i in (1, 2, 3)),
        *((i, 6) for i in (1, 2, 3)),
    ]
    assert set(second[6:].tolist()) == {2}


def test_no_item_is_paired_with_itself():
    """Item 2 is a training item and the target."""
    items = [f"i{i}" for i in range(5)]
    first, second = pairs_by_bucket(from_sequences("one", items, items, ["u"], [[1, 2, 3, 2, 4]]), 1)[1]
    assert first.tolist() == [1, 3, 1, 3]
    assert second[:2].tolist() == [2, 2]
    assert set(second[2:].tolist()) == {5}


def test_distances_and_t_test():
    table = np.array([[0, 0], [3, 4], [0, 1]], np.float32)
    np.testing.assert_allclose(distances(table, (np.array([0, 1]), np.array([1, 2]))), [5, np.sqrt(18)])
    first, second = np.array([1.0, 2, 3, 4]), np.array([1.5, 2.5, 3, 5])
    difference = first - second
    t = difference.mean() / (difference.std(ddof=1) / 2)
    assert paired_t_test(first, second) == pytest.approx(0.0917, abs=1e-3)
    assert t == pytest.approx(-2.449, abs=1e-3)
    assert paired_t_test(first, first) == 1
