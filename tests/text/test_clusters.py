"""k-means, classes of items, shares of classes."""

import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.text.clusters import item_classes, kmeans, preferences
from tests.support.data import tiny_dataset


def blobs(seed=0):
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(4), 25)
    return 5 * np.eye(6)[owner] + random.normal(size=(100, 6)) * 0.3, owner


def test_blobs_are_found_whatever_the_length_of_rows():
    rows, owner = blobs()
    scaled = rows * np.random.default_rng(1).uniform(0.01, 100, size=(100, 1))
    found = kmeans(scaled, 4, seed=0)
    assert len({(a, b) for a, b in zip(found, owner, strict=True)}) == 4
    np.testing.assert_array_equal(found, kmeans(scaled, 4, seed=0))


def test_it_is_a_fixed_point_without_empty_clusters():
    rows = np.random.default_rng(0).normal(size=(60, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = kmeans(rows, 8, seed=3)
    centres = np.stack([rows[found == c].mean(axis=0) for c in range(8)])
    np.testing.assert_array_equal(found, ((rows[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1))


@pytest.mark.parametrize("seed", range(5))
def test_no_cluster_is_empty(seed):
    """Many equal rows: k-means++ has to take other ones, and where there are too few the rest stays empty."""
    rows = np.concatenate([np.ones((50, 2)), np.eye(2), -np.eye(2), [[0.0, 0.0]]])
    assert len(set(kmeans(rows, 6, seed))) == 6
    assert len(set(kmeans(rows, 9, seed))) == 6
    rows = np.random.default_rng(seed).normal(size=(12, 2))
    assert sorted(kmeans(rows, 12, seed)) == list(range(12))


def test_a_cluster_that_has_lost_all_rows_starts_again(monkeypatch):
    rows = np.repeat(np.eye(4), 5, axis=0)

    class Same:  # k-means++ that takes one row four times
        def integers(self, *_):
            return 0

        def choice(self, *_, **__):
            return 0

    monkeypatch.setattr(np.random, "default_rng", lambda *_: Same())
    assert len(set(kmeans(rows, 4, 0))) == 4


def test_items_that_training_never_met_have_no_class():
    rows, owner = blobs()
    counts = np.ones(101, np.int64)
    counts[0] = counts[5] = counts[60] = 0
    table = np.concatenate([np.full((1, 6), 7.0), rows])
    classes = item_classes(table, counts, 4, 0)
    assert np.flatnonzero(classes < 0).tolist() == [0, 5, 60]
    table[[0, 5, 60]] = 1e6  # changes nothing
    np.testing.assert_array_equal(classes, item_classes(table, counts, 4, 0))
    met = counts[1:] > 0
    assert len({(a, b) for a, b in zip(classes[1:][met], owner[met], strict=True)}) == 4
    with pytest.raises(UserError, match=r"config.tune.clusters=99 needs as many items, and training met 98"):
        item_classes(table, counts, 99, 0)


def test_shares_are_of_training_prefixes_alone():
    data = tiny_dataset()
    classes = np.random.default_rng(0).integers(0, 5, 31)
    users, shares = preferences(data, classes, 5)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    for user, share in zip(users, shares, strict=True):
        prefix = data.events[data.starts[user] : data.starts[user + 1] - 2]
        np.testing.assert_allclose(share, np.bincount(classes[prefix], minlength=5) / len(prefix))
    for place in (data.cuts.valid, data.cuts.test):
        data.events[place] = 1 + data.events[place] % 30
    np.testing.assert_array_equal(preferences(data, classes, 5)[1], shares)
