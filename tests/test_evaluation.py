"""Ranking, metrics and the scorers without learning, against plain numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.data.batches import device_data
from pad_jax.data.dataset import FREQUENCY_GROUPS, frequency_buckets, frequency_group, from_sequences
from pad_jax.evaluation import ranking
from pad_jax.evaluation.baselines import BASELINES, baseline_ranks, cosine_of
from pad_jax.evaluation.metrics import hit_ratio, ndcg, summarize
from pad_jax.evaluation.ranking import rank_by_counting, ranker, ranks_of
from pad_jax.evaluation.significance import bootstrap_interval
from pad_jax.models.scorer import Scorer
from pad_jax.training import parallel
from tests.conftest import laid_out, tiny_dataset


def brute_force_rank(scores, target, history):
    """Sort the candidates of one user, place ties at the mean of their places."""
    candidates = [i for i in range(1, len(scores)) if i not in set(history)]
    if target not in candidates:
        return len(candidates) + 1
    places = [
        place for place, i in enumerate(sorted(candidates, key=lambda i: -scores[i]), 1) if scores[i] == scores[target]
    ]
    return np.mean(places)


def test_ranks_by_counting_are_ranks_by_sorting():
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, size=(200, 15)).astype(np.float32)  # many ties
    target = random.integers(1, 15, size=200)
    history = np.zeros((200, 6), np.int64)
    for row in range(200):
        items = random.choice(np.arange(1, 15), random.integers(0, 7), replace=False)
        history[row, : len(items)] = items
    ranks = rank_by_counting(jnp.asarray(scores), jnp.asarray(target), jnp.asarray(history))
    expected = [brute_force_rank(scores[r], target[r], history[r]) for r in range(200)]
    np.testing.assert_array_equal(ranks, expected)
    assert any(t in h for t, h in zip(target, history, strict=True))


def test_constant_scores_are_no_hits():
    ranks = rank_by_counting(jnp.ones((1, 101)), jnp.array([7]), jnp.zeros((1, 1), jnp.int32))
    assert float(ranks[0]) == 50.5


def test_scores_that_are_no_numbers_are_no_hits():
    scores = jnp.ones((2, 101)).at[0, 7].set(jnp.nan).at[1, 50:].set(jnp.nan)
    history = jnp.array([[3, 0], [60, 61]])
    np.testing.assert_array_equal(rank_by_counting(scores, jnp.array([7, 7]), history), [100, 1 + 49 + 24])


@pytest.mark.parametrize("columns", [1, 3, 16, 100])
def test_ranks_are_counted_a_few_columns_at_a_time(monkeypatch, columns):
    scores = np.random.default_rng(2).integers(0, 4, size=(20, 17)).astype(np.float32)
    target, history = np.arange(20) % 16 + 1, np.tile([4, 9, 0], (20, 1))
    monkeypatch.setattr(ranking, "_COLUMNS", columns)
    ranks = rank_by_counting(jnp.asarray(scores), jnp.asarray(target), jnp.asarray(history))
    for user in range(20):
        assert ranks[user] == brute_force_rank(scores[user], target[user], [4, 9])


@pytest.mark.parametrize("rows", [1, 3, 11])
def test_ranks_in_blocks_are_the_same(rows):
    random = np.random.default_rng(1)
    users, items = (jnp.asarray(random.integers(-2, 3, size=shape), jnp.float32) for shape in ((11, 3), (16, 3)))
    target = jnp.asarray(random.integers(1, 16, size=11))
    history = jnp.asarray(np.tile([4, 9, 0], (11, 1)))
    expected = rank_by_counting(users @ items.T, target, history)
    np.testing.assert_array_equal(ranks_of(users, items, target, history, rows), expected)


@pytest.fixture
def pad_scorer(make_config, dataset, text):
    config = make_config()
    scorer = Scorer(config.model, config.gate, "sasrec", ("id", "aligned", "text"), 10, 8)
    params = scorer.init(jax.random.key(0), dataset.items, 12)
    return scorer, parallel.replicate(params), parallel.replicate(device_data(dataset, 8, 10, text))


def test_full_ranking_is_the_brute_force(pad_scorer, text):
    """The whole path, on all fake devices, against 501 users ranked one by one in numpy."""
    scorer, params, _ = pad_scorer
    dataset = tiny_dataset(users=501)
    data = parallel.replicate(device_data(dataset, 8, 10, text))
    everything = jnp.arange(dataset.items + 1)
    items = scorer.item_vectors(params, everything, data)
    gated = np.asarray(scorer.gated(params, items, data.bucket))

    @jax.jit
    def user_vector(seen):
        layout = laid_out(np.arange(8)[None] >= 8 - len(seen))
        row = jnp.zeros(8, jnp.int32).at[8 - len(seen) :].set(seen)
        inputs = {e: layout.grid.to_tokens(v.vector[row][None]) for e, v in items.items()}
        return layout.last(scorer.users(params, inputs, layout))[0]

    for name in ("valid", "test"):
        ranks = ranker(scorer, 16)(params, data, dataset.split(name, 8))
        for user in range(dataset.users):
            sequence = dataset.events[dataset.starts[user] : dataset.starts[user + 1]]
            past, target = (sequence[:-2], sequence[-2]) if name == "valid" else (sequence[:-1], sequence[-1])
            scores = np.asarray(user_vector(past[-8:])) @ gated.T
            assert abs(ranks[user] - brute_force_rank(scores, target, past)) <= 0.5, user


def test_ranks_do_not_depend_on_the_blocks_of_the_catalogue(pad_scorer, dataset, monkeypatch):
    scorer, params, data = pad_scorer
    split = dataset.split("test", 8)
    whole = ranker(scorer, 16)(params, data, split)
    monkeypatch.setattr("pad_jax.models.scorer._CATALOGUE", 7)  # of 30 items and padding
    np.testing.assert_array_equal(ranker(scorer, 16)(params, data, split), whole)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_ranks_do_not_depend_on_the_batch(pad_scorer, dataset, batch):
    scorer, params, data = pad_scorer
    split = dataset.split("test", 8)
    np.testing.assert_array_equal(ranker(scorer, batch)(params, data, split), ranker(scorer, 5)(params, data, split))


@pytest.mark.parametrize("devices", [1, 2])
def test_ranks_do_not_depend_on_the_number_of_devices(pad_scorer, dataset, monkeypatch, devices):
    scorer, params, data = pad_scorer
    split = dataset.split("test", 8)
    four = ranker(scorer, 8)(params, data, split)
    here = jax.devices()[:devices]
    monkeypatch.setattr(jax, "devices", lambda: here)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    params, data = jax.tree.map(np.asarray, (params, data))
    fewer = ranker(scorer, 8)(parallel.replicate(params), parallel.replicate(data), split)
    np.testing.assert_array_equal(fewer, four)


def test_metrics():
    ranks = np.array([1.0, 2.5, 10.0, 10.5, 400.0])
    np.testing.assert_array_equal(hit_ratio(ranks, 10), [1, 1, 1, 0, 0])
    np.testing.assert_allclose(ndcg(ranks, 10), [1, 1 / np.log2(3.5), 1 / np.log2(11), 0, 0])
    counts, buckets = np.array([60, 8, 0, 3, 3]), np.array([1, 1, 2, 2, 2])
    result = summarize(ranks, counts, buckets, (5, 10), 3)
    assert result["HR@10"] == pytest.approx(0.6)
    assert result["HR@5"] == pytest.approx(0.4)
    assert result["MRR"] == pytest.approx(np.mean(1 / ranks))
    assert {g: m["users"] for g, m in result["by_frequency"].items()} == {
        "warm": 1,
        "median": 1,
        "cold": 2,
        "unseen": 1,
    }
    assert [m["users"] for m in result["by_bucket"]] == [2, 3, 0]
    assert result["by_bucket"][2]["HR@10"] is None


def test_bootstrap_interval_of_a_known_spread():
    """The standard error of a mean of 400 values of deviation 1 is 0.05: a 95 % interval is about +-0.098."""
    difference = np.random.default_rng(0).choice([-1.0, 1.0], 400)
    mean, low, high = bootstrap_interval(difference)
    assert mean == difference.mean()
    assert mean - low == pytest.approx(0.098, abs=0.012)
    assert high - mean == pytest.approx(0.098, abs=0.012)


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


def test_baselines_are_the_definitions(dataset, text):
    split = dataset.split("test", 8)
    counts = dataset.counts
    follows = np.zeros((31, 31))
    for user in range(dataset.users):
        prefix = dataset.events[dataset.starts[user] : dataset.starts[user + 1]][:-2]
        for last, item in itertools.pairwise(prefix):
            follows[last, item] += 1
    unit = text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    results = dict(baseline_ranks(dataset, split, text))
    assert list(results) == list(BASELINES)
    for user in range(dataset.users):
        last, before = split.inputs[user, -1], split.inputs[user, -2]
        scores = {
            "popularity": counts.astype(float),
            "markov": follows[last] + counts / 1000,
            "text_cosine": cosine[last],
            "markov_text": np.log1p(follows[last]) + 2 * cosine[last] + cosine[before],
        }
        for name, score in scores.items():
            expected = brute_force_rank(score, split.target[user], split.history[user])
            assert abs(results[name][user] - expected) <= 0.5, (name, user)
    without = dict(baseline_ranks(dataset, split, None))
    assert without["text_cosine"] is None
    assert without["markov_text"] is None
    np.testing.assert_array_equal(without["markov"], results["markov"])


def test_items_of_the_same_vector_are_ties_of_the_text_scorers():
    """Exact ones, wherever they stand: a matrix product rounds the same row differently in different places."""
    table = np.random.default_rng(0).normal(size=(7, 384)).astype(np.float32)[np.arange(1003) % 7]
    scores = cosine_of(table)(np.arange(200))
    for first in range(7):
        assert (scores[:, first::7] == scores[:, [first]]).all()
    np.testing.assert_allclose(scores.diagonal(), 1, atol=1e-6)


def test_split_is_leave_one_out():
    data = from_sequences("x", list("abcdefg"), list("abcdefg"), ["u", "v"], [[1, 2, 3, 2, 4, 5, 6], [7, 7, 1, 3, 2]])
    valid, test = data.split("valid", 3), data.split("test", 3)
    np.testing.assert_array_equal(valid.inputs, [[3, 2, 4], [7, 7, 1]])
    np.testing.assert_array_equal(valid.target, [5, 3])
    np.testing.assert_array_equal(test.inputs, [[2, 4, 5], [7, 1, 3]])
    np.testing.assert_array_equal(test.target, [6, 2])
    assert sorted(test.history[0][test.history[0] > 0]) == [1, 2, 3, 4, 5]
    assert sorted(test.history[1][test.history[1] > 0]) == [1, 3, 7]
    np.testing.assert_array_equal(data.train_windows(3), [[2, 3, 2, 4], [0, 7, 7, 1]])
    np.testing.assert_array_equal(data.counts, [0, 2, 2, 1, 1, 0, 0, 2])
