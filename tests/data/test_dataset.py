"""A dataset: its groups and buckets of items, and its split."""

import numpy as np
import pytest

from pad_jax.data.dataset import FREQUENCY_GROUPS, frequency_buckets, frequency_group, from_sequences


def test_frequency_groups_cover_every_count_once():
    counts = np.arange(200)
    total = sum(mask.astype(int) for mask in frequency_group(counts).values())
    np.testing.assert_array_equal(total, 1)
    assert list(FREQUENCY_GROUPS) == ["warm", "median", "cold", "unseen"]


def test_frequency_buckets():
    """total 20, four buckets: a bucket closes as soon as its own count reaches 5."""
    bucket, cuts = frequency_buckets(np.array([0, 1, 6, 4, 4, 2, 2, 1, 0]), 4)
    assert cuts == [1, 3, 6]
    np.testing.assert_array_equal(bucket, [0, 3, 1, 2, 2, 3, 3, 4, 4])


def test_split_is_leave_one_out():
    data = from_sequences("x", list("abcdefg"), list("abcdefg"), ["u", "v"], [[1, 2, 3, 2, 4, 5, 6], [7, 7, 1, 3, 2]])
    valid, test = data.split("valid", 3), data.split("test", 3)
    np.testing.assert_array_equal(valid.inputs, [[3, 2, 4], [7, 7, 1]])
    np.testing.assert_array_equal(valid.target, [5, 3])
    np.testing.assert_array_equal(test.inputs, [[2, 4, 5], [7, 1, 3]])
    np.testing.assert_array_equal(test.target, [6, 2])
    assert sorted(test.history[0][test.history[0] > 0]) == [1, 2, 3, 4, 5]
    assert sorted(test.history[1][test.history[1] > 0]) == [1, 3, 7]
    np.testing.assert_array_equal(data.train_windows(3)[0], [[2, 3, 2, 4], [0, 7, 7, 1]])
    np.testing.assert_array_equal(data.counts, [0, 2, 2, 1, 1, 0, 0, 2])


@pytest.mark.parametrize("length", [2, 3, 4, 7, 20])
def test_windows_that_hold_every_event(length):
    """Each event but a user's first is a target once; the newest window is the one that stands alone without."""
    items = [str(n) for n in range(40)]
    users = [list(range(1, n + 3)) for n in (1, 2, 3, 5, 8, 9, 30)]
    data = from_sequences("x", items, items, [str(len(u)) for u in users], users)
    windows, owner = data.train_windows(length, every=True)
    for place, user in enumerate(data.training_users):
        rows = windows[owner == place]
        targets = [row[i] for row in rows for i in range(1, length + 1) if row[i - 1] > 0]
        assert sorted(targets) == users[user][1:-2]
        assert len(rows) == -(-(len(users[user]) - 3) // length)
    latest, owners = data.train_windows(length)
    np.testing.assert_array_equal(owners, np.arange(len(data.training_users)))
    np.testing.assert_array_equal(windows[np.unique(owner, return_index=True)[1]], latest)
