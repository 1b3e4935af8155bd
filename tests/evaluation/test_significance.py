"""Intervals and chances."""

from itertools import product

import numpy as np
import pytest

from pad_jax.evaluation import significance
from pad_jax.evaluation.significance import bootstrap_interval, bootstrap_means, effect, group_regret, holm


def test_bootstrap_interval_of_a_known_spread():
    """The standard error of a mean of 400 values of deviation 1 is 0.05: a 95 % interval is about +-0.098."""
    difference = np.random.default_rng(0).choice([-1.0, 1.0], 400)
    mean, low, high = bootstrap_interval(difference)
    assert mean == difference.mean()
    assert mean - low == pytest.approx(0.098, abs=0.012)
    assert high - mean == pytest.approx(0.098, abs=0.012)


@pytest.mark.parametrize(
    "difference",
    [[[0.0, 1.0, -0.5, 0.0], [0.0, 0.25, 0.5, 0.0]], [[1.0, 0.0, 2.0]], [[1.0], [2.0], [-1.0]]],
    ids=["seeds and users", "one seed", "one user"],
)
def test_draws_are_those_of_every_way_to_draw(difference, monkeypatch):
    """Each mean as often as among all equally likely draws of seeds x users; blocks change nothing of that."""
    monkeypatch.setattr(significance, "_DRAWN", 5000)
    values, draws = np.array(difference), 40_000
    seeds, users = (list(product(range(n), repeat=n)) for n in values.shape)
    every = [values[np.ix_(s, u)].mean() for s in seeds for u in users]
    expected = dict(zip(*np.unique(np.round(every, 9), return_counts=True), strict=True))
    found = dict(zip(*np.unique(np.round(bootstrap_means(values, draws), 9), return_counts=True), strict=True))
    assert set(found) <= set(expected)
    for mean, count in expected.items():
        share = count / len(every)
        assert abs(found.get(mean, 0) / draws - share) < 5 * np.sqrt(share * (1 - share) / draws)


def test_an_effect_is_made_of_its_draws():
    values = np.random.default_rng(0).normal(0.02, 1, size=(3, 500))
    means = bootstrap_means(values)
    found = effect(values)
    assert found.mean == values.mean()
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]))
    assert found.p == 2 * min((means <= 0).mean(), (means >= 0).mean())
    assert found.least == pytest.approx(2.8 * means.std())
    assert effect(-values).p == found.p
    assert effect(np.ones((2, 50))) == (1.0, 1.0, 1.0, 1e-4, pytest.approx(0, abs=1e-12), 50)  # 1 / draws, at least
    assert effect(np.zeros((2, 5))) == (0.0, 0.0, 0.0, 1.0, 0.0, 0)
    with pytest.raises(ValueError, match="0 seeds and 5 users"):
        effect(np.zeros((0, 5)))


def test_few_users_who_differ_prove_little():
    """All eight one way: what flipping their signs gives, 2 of 256, and not what 10,000 draws have."""
    values = np.zeros((2, 250))
    values[0, :6] = values[1, 2:8] = 0.5
    assert 2 * (bootstrap_means(values) <= 0).mean() < 2**-8
    assert (effect(values).p, effect(values).differ) == (2**-7, 8)
    assert effect(-values[:1]).p == 2**-5


def test_an_effect_knows_both_users_and_seeds():
    """The variance over draws of a table with user and seed effects, b_u + a_s: that of both means."""
    random = np.random.default_rng(0)
    of_users, of_seeds = random.normal(size=300), random.normal(size=5)
    for values in (of_users[None] + of_seeds[:, None], of_users[None]):
        variance = of_users.var() / 300 + (of_seeds.var() / 5 if len(values) > 1 else 0)
        assert effect(values).least == pytest.approx(2.8 * np.sqrt(variance), rel=0.03)


def test_where_nothing_differs_chance_is_found_as_often_as_it_should_be():
    """p below 0.05 in about 5 % of tables without an effect, and a true one of `least` in about 80 %."""
    random = np.random.default_rng(0)
    tables = [random.normal(size=(1, 200)) for _ in range(300)]
    found = [effect(values, draws=1000) for values in tables]
    assert 0.02 < np.mean([f.p < 0.05 for f in found]) < 0.09
    moved = [effect(v + f.least, draws=1000) for v, f in zip(tables, found, strict=True)]
    assert 0.72 < np.mean([f.p < 0.05 for f in moved]) < 0.88


def test_holm_is_the_step_down_test():
    """At every level it rejects what the procedure rejects: the least p at level / K, the next at level / (K - 1)"""
    random = np.random.default_rng(0)
    for _ in range(30):
        p = np.round(random.uniform(0, 0.2, size=6), 2).tolist()
        corrected = holm(p)
        for level in (0.01, 0.05, 0.1, 0.3):
            rejected = set()
            for step, test in enumerate(sorted(range(6), key=lambda k: p[k])):
                if p[test] * (6 - step) > level:
                    break
                rejected.add(test)
            assert {k for k in range(6) if corrected[k] <= level} == rejected
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_group_regret_by_hand():
    """(0 + 1/2) / 2, (1/4 + 0) / 2; the third group, in which nobody has anything, says nothing."""
    groups = [np.isin(np.arange(6), users) for users in ([0, 1], [2, 3], [4, 5])]
    a, b = np.array([8.0, 8.0, 1.0, 1.0, 0.0, 0.0]), np.array([6.0, 6.0, 2.0, 2.0, 0.0, 0.0])
    found = group_regret({"a": np.stack([a, a]), "b": np.stack([b, b])}, groups)
    assert found["a"] == pytest.approx((0.25,) * 3)  # users of a group are alike, and so are seeds: nothing to draw
    assert found["b"] == pytest.approx((0.125,) * 3)
    assert np.isnan(group_regret({"a": a[None]}, groups[2:])["a"]).all()
    assert np.isnan(group_regret({"a": a[None]}, [])["a"]).all()


def test_group_regret_draws_users_and_seeds_for_all_rows_alike():
    everyone = [np.ones(40, bool)]
    half = np.repeat([0.0, 1.0], 20)
    other = {"a": half[None], "b": 1.1 * half[::-1][None]}
    value, low, high = group_regret(other, everyone)["a"]
    assert value == pytest.approx(1 / 11)
    assert low == 0  # in some draws a is the best
    assert 0.3 < high < 0.7
    assert group_regret({"a": half[None], "b": 2 * half[None]}, everyone)["a"] == pytest.approx((0.5,) * 3)
    seeds = {"a": np.stack([np.ones(40), 3 * np.ones(40)]), "b": 4 * np.ones((2, 40))}
    assert group_regret(seeds, everyone)["a"] == pytest.approx((0.5, 0.25, 0.75))
