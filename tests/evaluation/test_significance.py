"""Intervals and chances."""

import numpy as np
import pytest

from pad_jax.evaluation.significance import bootstrap_interval


def test_bootstrap_interval_of_a_known_spread():
    """The standard error of a mean of 400 values of deviation 1 is 0.05: a 95 % interval is about +-0.098."""
    difference = np.random.default_rng(0).choice([-1.0, 1.0], 400)
    mean, low, high = bootstrap_interval(difference)
    assert mean == difference.mean()
    assert mean - low == pytest.approx(0.098, abs=0.012)
    assert high - mean == pytest.approx(0.098, abs=0.012)
