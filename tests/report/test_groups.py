"""Runs of one configuration."""

from tests.support.groups import Group


def test_the_difference_of_seeds_is_of_the_same_seed():
    first, second = Group([1.0], seeds=(0, 1, 2)), Group([0.0], seeds=(1, 0))
    assert [(a["seed"], b["seed"]) for a, b in first.pairs(second)] == [(0, 0), (1, 1)]
