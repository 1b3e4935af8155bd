"""Routing users between two scorers."""

import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.studies import allocate
from pad_jax.studies.allocate import Rule, Users


def users(count=2000, gain=0.5):
    """The other scorer is better by `gain` for who has met 5 items or fewer and stands at rank 100 or behind."""
    random = np.random.default_rng(0)
    met, rank = random.integers(1, 21, count).astype(float), random.integers(1, 501, count).astype(float)
    own = random.random(count)
    return Users(own, np.where((met <= 5) & (rank >= 100), own + gain, own - gain), met, rank)


def test_the_rule_is_found():
    found = users()
    weak, rules = allocate.route(found)
    for rule in rules:  # the nearest decile that takes nobody else
        assert 3 < rule.met <= 5
        assert 50 < rule.rank < 150
    better = found.other > found.own
    assert weak[better].mean() > 0.9
    assert weak[~better].mean() < 0.05
    assert np.where(weak, found.other, found.own).mean() > found.own.mean()


def test_halves_do_not_judge_their_own_rule():
    """A user's own outcome does not decide on it: with other outcomes of one half, that half is routed as before."""
    found = users()
    half = np.random.default_rng(0).permutation(len(found.own)) % 2 == 1
    other = found._replace(other=np.where(half, found.own - 1, found.other))
    weak, _ = allocate.route(found)
    changed, rules = allocate.route(other)
    np.testing.assert_array_equal(changed[half], weak[half])
    assert rules[1] == Rule(0.0, np.inf)
    assert not changed[~half].any()


def test_nobody_is_weak_without_gain():
    weak, rules = allocate.route(users(gain=-0.0)._replace(other=np.zeros(2000)))
    assert not weak.any()
    assert rules == [Rule(0.0, np.inf)] * 2


def test_report(train, tmp_path, capsys):
    _, workdir = train("sasrec")
    assert allocate.main([str(workdir), "--scorer", "counts"]) == 0
    out = capsys.readouterr().out
    assert f"| {workdir.name}, pretrain |" in out
    assert "% of the users. Routed minus run" in out
    assert allocate.main([str(workdir), "--scorer", "count"]) == 2
    assert "did you mean 'counts'?" in capsys.readouterr().err
    with pytest.raises(UserError, match="no finished"):
        allocate.report(tmp_path, "counts", tmp_path)
