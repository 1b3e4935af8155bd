"""The popularity dial against plain numpy: ranks, lists, units, curves, and which beta is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax import parallel
from pad_jax.batching.device import device_data
from pad_jax.data.settings import DataSettings
from pad_jax.errors import UserError
from pad_jax.evaluation import baselines, popularity, ranking
from pad_jax.evaluation.baselines import BASELINES, ranked_baselines
from pad_jax.evaluation.metrics import hit_ratio, ndcg
from pad_jax.evaluation.ranking import lister, rank_by_counting, ranker
from pad_jax.models.scorer import Scorer
from tests.support.data import small_config
from tests.support.devices import needs
from tests.support.ranks import brute_force_rank

COUNTS = np.array([0, 3, 0, 7, 1, 90, 20, 0])


@pytest.mark.parametrize("columns", [3, 512])
def test_ranks_under_an_offset_are_those_of_the_sum(monkeypatch, columns):
    """With many ties, before and after, histories of all lengths, and targets that stand in them."""
    monkeypatch.setattr(ranking, "_COLUMNS", columns)
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, size=(200, 15)).astype(np.float32)
    offset = random.integers(-2, 3, size=15).astype(np.float32)
    target = random.integers(1, 15, size=200)
    history = np.zeros((200, 6), np.int64)
    for row in range(200):
        items = random.choice(np.arange(1, 15), random.integers(0, 7), replace=False)
        history[row, : len(items)] = items
    ranks = rank_by_counting(*map(jnp.asarray, (scores, target, history, offset)))
    expected = [brute_force_rank(scores[r] + offset, target[r], history[r]) for r in range(200)]
    np.testing.assert_array_equal(ranks, expected)
    without = [brute_force_rank(scores[r], target[r], history[r]) for r in range(200)]
    assert (np.array(without) != expected).mean() > 0.5
    none = rank_by_counting(*map(jnp.asarray, (scores, target, history, np.zeros_like(offset))))
    np.testing.assert_array_equal(none, without)


def test_an_offset_is_beta_log_count():
    np.testing.assert_allclose(popularity.offset(-0.5, COUNTS), -0.5 * np.log(1 + COUNTS), rtol=1e-6)
    several = popularity.offset((2.0, 0.0), COUNTS)
    np.testing.assert_array_equal(several, [popularity.offset(2.0, COUNTS), np.zeros(8)])
    assert several.dtype == np.float32


def test_betas_are_in_units_of_the_scores():
    """So that a scorer whose scores are three times as large has betas three times as large, and the same curve."""
    deviation = np.array([1.0, 4.0, 2.0, 0.0, np.nan])
    unit = 2 / np.std(np.log(1 + COUNTS[1:]))
    found = popularity.betas(deviation, COUNTS)
    np.testing.assert_allclose(found, np.array(popularity.GRID) * unit, rtol=1e-3)
    np.testing.assert_allclose(popularity.betas(3 * deviation, COUNTS), 3 * np.array(found), rtol=1e-3)
    np.testing.assert_array_equal(popularity.GRID, -np.array(popularity.GRID)[::-1])
    assert found[len(found) // 2] == 0
    assert popularity.betas(np.zeros(3), COUNTS) == (0.0,)
    assert popularity.betas(deviation, np.full(8, 5)) == (0.0,)


def test_a_curve_has_the_metrics_of_each_beta():
    target, ranks = np.array([1, 2, 5, 5]), np.array([[1.0, 12, 3, 9], [2, 2.5, 20, np.inf]])
    points = popularity.curve(zip((-1.0, 0.0), ranks, strict=True), target, COUNTS)
    assert [point["beta"] for point in points] == [-1, 0]
    for point, of in zip(points, ranks, strict=True):
        assert (point["HR@10"], point["nDCG@10"]) == (hit_ratio(of, 10).mean(), ndcg(of, 10).mean())
        assert point["by_frequency"]["warm"] == {
            "HR@10": hit_ratio(of[2:], 10).mean(),
            "nDCG@10": ndcg(of[2:], 10).mean(),
        }
        assert point["by_frequency"]["unseen"]["nDCG@10"] == ndcg(of[1:2], 10)[0]
        assert point["by_frequency"]["median"] == {"HR@10": None, "nDCG@10": None}
    (own,) = popularity.curve([(0.5, ranks[0])], target, COUNTS, ("MRR",))
    assert own["MRR"] == (1 / ranks[0]).mean()


def test_the_best_beta_on_validation_is_chosen():
    points = [
        {"beta": beta, "nDCG@10": value} for beta, value in ((-2, 0.3), (-1, 0.5), (0, 0.4), (0.5, 0.5), (1, 0.1))
    ]
    assert popularity.chosen("valid", points, "nDCG@10") == 0.5
    assert popularity.chosen(0.7, points, "nDCG@10") == 0.7
    assert popularity.chosen(0.7, [], "nDCG@10") == 0.7
    for missing in ([], [{"beta": 0.0, "HR@10": 1.0}]):
        with pytest.raises(UserError, match="needs the curve over it, which the job `evaluate` makes"):
            popularity.chosen("valid", missing, "nDCG@10")


@pytest.mark.parametrize(("seen", "few"), [(10, 1024), (3, 5)])
def test_curves_of_baselines_are_those_of_every_beta_alone(dataset, text, monkeypatch, seen, few):
    """The first places by sorting, whatever few items are looked at first."""
    monkeypatch.setattr(baselines, "_SEEN", seen)
    monkeypatch.setattr(baselines, "_FEW", few)
    split = dataset.split("test", 8)
    found = ranked_baselines(dataset, {"test": split}, text)
    scores = baselines.scores_of(dataset, text)
    kept = 0
    for name, weights in BASELINES.items():
        made = {part: scores[part](split.inputs) for part in weights}
        ranked = found[name]
        np.testing.assert_array_equal(
            ranked.ranks["test"], baselines.baseline_ranks(dataset, {"test": split}, text)[name]["test"]
        )
        rows = [sum(np.float32(w) * made[part](u) for part, w in weights.items()) for u in range(len(split.target))]
        deviation = np.array([row[1:].std() for row in rows])
        np.testing.assert_allclose(ranked.betas, popularity.betas(deviation, dataset.counts), rtol=1e-3)
        for user, row in enumerate(rows):
            for beta, rank in zip(ranked.betas, ranked.over["test"][user], strict=True):
                total = row + popularity.offset(beta, dataset.counts)
                expected = brute_force_rank(np.round(total, 6), split.target[user], split.history[user])
                if np.isinf(rank):
                    assert expected > seen - 0.5, (name, user, beta)
                else:
                    assert abs(rank - expected) <= 0.5, (name, user, beta)
                    assert rank <= seen
                    kept += 1
    assert kept > 100


@pytest.fixture(scope="module")
def scored(dataset, text):
    """A scorer, its parameters, data on all devices, and its scores of every test user by the lister's own products."""
    scorer = Scorer(small_config(), ("id", "aligned", "text"), "bucket_emb")
    params = jax.jit(lambda key: scorer.init(key, dataset.items, 12))(jax.random.key(0))
    data = device_data(dataset, DataSettings(length=8), text)
    return scorer, jax.tree.map(np.asarray, params), data


def listed(scored, split, offsets, offset, batch=8):
    scorer, params, data = scored
    return lister(scorer, batch, 10)(
        parallel.replicate(params), parallel.replicate(data), split, [split], offsets, offset
    )


@pytest.mark.slow
def test_ranks_and_lists_under_the_dial(scored, dataset):
    """All betas at once are each alone; lists hold a target where its rank says so; beta 0 changes nothing."""
    split, counts = dataset.split("test", 8), dataset.counts
    betas = popularity.betas(listed(scored, split, np.zeros((1, 31), np.float32), None).deviation, counts)
    offsets = popularity.offset(betas, counts)
    before = ranker(scored[0], 8)(parallel.replicate(scored[1]), parallel.replicate(scored[2]), split)
    usual = listed(scored, split, offsets, None)
    np.testing.assert_array_equal(usual.ranks, before)
    np.testing.assert_array_equal(usual.over[:, betas.index(0)], before)
    for g in (0, 4, 5, 10):
        one = listed(scored, split, offsets, offsets[g])
        np.testing.assert_array_equal(one.over, usual.over)
        np.testing.assert_array_equal(one.ranks, usual.over[:, g])
        hit = (one.items == split.target[:, None]).any(axis=1)
        np.testing.assert_array_equal(hit, one.ranks <= 10)
    warm = listed(scored, split, offsets, popularity.offset(1e4, counts)).items
    for user, row in enumerate(warm):
        left = np.setdiff1d(np.arange(1, 31), split.history[user])
        assert sorted(counts[row]) == sorted(np.sort(counts[left])[-10:])


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_the_dial_does_not_depend_on_the_number_of_devices(scored, dataset, monkeypatch, devices):
    needs(devices)
    split = dataset.split("test", 8)
    offsets = popularity.offset((-0.1, 0.0, 0.1), dataset.counts)
    four = listed(scored, split, offsets, offsets[2])
    here = jax.devices()[:devices]
    monkeypatch.setattr(jax, "devices", lambda: here)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    fewer = listed(scored, split, offsets, offsets[2])
    for one, other in zip(fewer[:3], four[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    assert popularity.betas(fewer.deviation, dataset.counts) == popularity.betas(four.deviation, dataset.counts)
