"""Claims of the comparison of all methods."""

import numpy as np

from pad_jax.studies import compare
from pad_jax.studies.claims import AGREES, DISAGREES, UNTESTED
from tests.support.groups import Group


def test_claims_of_compare():
    """PAD against the best of all baselines, not the first, and only when all were run."""
    random = np.random.default_rng(0)
    names = ("sasrec", "ctrl", "hybrid", "morec", "make", "disco", "smem", "pad")
    assert sorted(names) == sorted(compare.methods())
    levels = dict(zip(names, (1, 2, 3, 4, 5, 9, 6, 8), strict=True))
    groups = {
        name: Group(level + random.normal(size=200), warm=1.0, median=1.0, cold=1.0) for name, level in levels.items()
    }
    groups["pad"].means = {"warm": 1.1, "median": 1.2, "cold": 1.3}
    assert compare.best_baseline(groups) == "disco"
    first, smem, colder = compare.claims(groups, {"markov": 7.5})
    assert first.verdict == DISAGREES
    assert "against disco p < 0.001" in first.found
    assert "markov 7.50" in first.found
    assert smem.verdict == AGREES
    assert colder.verdict == AGREES
    groups["pad"].means["cold"] = 1.15
    assert compare.claims(groups, {})[2].verdict == DISAGREES
    groups["sasrec"].means["cold"] = 0.0
    assert compare.claims(groups, {})[2].verdict == UNTESTED
    del groups["make"]
    assert compare.claims(groups, {})[0].verdict == UNTESTED
