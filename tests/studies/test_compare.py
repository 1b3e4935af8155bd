"""Claims of the comparison of all methods."""

import numpy as np

from pad_jax.methods import METHODS
from pad_jax.studies import compare
from pad_jax.studies.claims import AGREES, DISAGREES, UNTESTED
from pad_jax.studies.study import equal_budget
from tests.support.groups import Group


def test_claims_of_compare():
    """PAD against the best of all baselines, not the first, and only when all were run."""
    random = np.random.default_rng(0)
    names = ("sasrec", "ctrl", "hybrid", "morec", "make", "disco", "smem", "pad")
    assert sorted(names) == sorted([*compare.TABLE_2, "pad"])
    assert set(names) <= set(compare.methods())
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


def test_budgets_are_equal_in_all(make_config):
    """Epochs and minutes of every method add up to those of PAD, whatever its phases; no limit stays none."""
    fields = {"pretrain.minutes": 10.0, "align.minutes": 20.0, "finetune.minutes": 40.0}
    config = make_config(**{"pretrain.epochs": 3, "align.epochs": 5, "finetune.epochs": 7, **fields})
    for row in compare.rows(config):
        own = row.config(config, 0)
        limits = [phase.limits(own) for phase in METHODS[row.method](own).phases]
        assert sum(limit.epochs for limit in limits) == 15, row.name
        assert sum(limit.minutes for limit in limits) == 70, row.name
    assert equal_budget(config, "pad") == {}
    unlimited = make_config(**{"pretrain.minutes": 10.0, "align.minutes": 0.0})
    assert equal_budget(unlimited, "sasrec")["pretrain.minutes"] == 0
