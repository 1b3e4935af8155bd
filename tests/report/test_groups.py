"""Runs of one configuration."""

import numpy as np

from pad_jax.report.groups import paired
from tests.support.groups import Group


def test_the_difference_of_seeds_is_of_the_same_seed():
    first, second = Group([1.0], seeds=(0, 1, 2)), Group([0.0], seeds=(1, 0))
    assert [(a["seed"], b["seed"]) for a, b in first.pairs(second)] == [(0, 0), (1, 1)]


def test_users_are_paired_under_the_seeds_that_both_have():
    first = {0: np.array([1.0, 2.0]), 3: np.array([5.0, 5.0]), 1: np.array([4.0, 4.0])}
    second = {1: np.array([1.0, 0.0]), 0: np.array([0.0, 1.0]), 2: np.array([9.0, 9.0])}
    np.testing.assert_array_equal(paired(first, second), [[1.0, 1.0], [3.0, 4.0]])


def test_the_length_of_a_phase_is_that_of_its_results():
    ends = {"epochs": 9, "stopped": "minutes"}, {"epochs": 7, "stopped": "patience"}, {"epochs": 5}  # of old results
    group = Group([1.0], seeds=(0, 1, 2))
    for run, end in zip(group.results, ends, strict=True):
        run["phases"] = {"align": end}
    assert group.lengths == {"align": [(9, True), (7, False), (5, False)]}
