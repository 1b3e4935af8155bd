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
    assert "against chunks + CLUB (after DisCo) p < 0.001" in first.found
    assert "markov 7.50" in first.found
    assert smem.verdict == AGREES
    assert colder.verdict == AGREES
    groups["pad"].means["cold"] = 1.15
    assert compare.claims(groups, {})[2].verdict == DISAGREES
    groups["pad"].results[0]["phases"] = {"finetune": {"epochs": 3, "stopped": "minutes"}}
    assert [claim.verdict for claim in compare.claims(groups, {})] == [UNTESTED] * 3
    groups["pad"].results[0]["phases"] = {}
    groups["sasrec"].means["cold"] = 0.0
    assert compare.claims(groups, {})[2].verdict == UNTESTED
    del groups["make"]
    assert compare.claims(groups, {})[0].verdict == UNTESTED


def test_the_best_baseline_is_chosen_on_validation():
    """Not by what is judged with it; and PAD without its MMD is no baseline of PAD."""
    groups = {"sasrec": Group([1.0], valid=3.0), "make": Group([5.0], valid=2.0)}
    groups |= {"pad": Group([6.0], valid=6.0), compare.WITHOUT_MMD: Group([7.0], valid=7.0)}
    assert compare.best_baseline(groups) == "sasrec"
    assert compare.best_baseline({"pad": groups["pad"]}) == ""


def test_pad_stands_beside_itself_without_mmd(make_config):
    """It repeats PAD's phase 1; where PAD has no MMD there is no such row."""
    rows = {row.name: row for row in compare.rows(make_config("best"))}
    row = rows[compare.WITHOUT_MMD]
    assert list(rows)[-2:] == [compare.WITHOUT_MMD, "pad"]
    assert (row.method, row.fields, row.base, row.shares) == ("pad", {"mmd.weight": 0.0}, rows["pad"], ("pretrain",))
    for fields in ({"mmd.weight": 0.0}, {"alignment.loss": "infonce"}):
        assert compare.WITHOUT_MMD not in {row.name for row in compare.rows(make_config("best", **fields))}


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
