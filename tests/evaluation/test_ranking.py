"""Ranking against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax import parallel
from pad_jax.batching.device import device_data
from pad_jax.data.settings import DataSettings
from pad_jax.evaluation import ranking
from pad_jax.evaluation.ranking import rank_by_counting, ranker, ranks_of
from pad_jax.models.scorer import Scorer
from tests.support.data import laid_out, small_config, tiny_dataset
from tests.support.devices import needs
from tests.support.ranks import brute_force_rank


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
    np.testing.assert_array_equal(rank_by_counting(scores, jnp.array([7, 7]), history), [1001, 1 + 49 + 24])


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


@pytest.fixture(scope="module")
def pad_scorer(dataset, text):
    config = small_config()
    scorer = Scorer(config, ("id", "aligned", "text"), "bucket_emb")
    params = jax.jit(lambda key: scorer.init(key, dataset.items, 12))(jax.random.key(0))
    return scorer, parallel.replicate(params), parallel.replicate(device_data(dataset, DataSettings(length=8), text))


@pytest.mark.slow
def test_full_ranking_is_the_brute_force(pad_scorer, text):
    """The whole path, on all fake devices, against 501 users ranked one by one in numpy."""
    scorer, params, _ = pad_scorer
    dataset = tiny_dataset(users=501)
    data = parallel.replicate(device_data(dataset, DataSettings(length=8), text))
    everything = jnp.arange(dataset.items + 1)
    items = jax.jit(scorer.item_vectors)(params, everything, data)
    gated = np.asarray(jax.jit(scorer.gated)(params, items, data.bucket, data.counts).vectors)

    @jax.jit
    def user_vector(seen):
        layout = laid_out(np.arange(8)[None] >= 8 - len(seen))
        row = jnp.zeros(8, jnp.int32).at[8 - len(seen) :].set(seen)
        inputs = {e: layout.grid.to_tokens(v.vector[row][None]) for e, v in items.items()}
        return layout.last(scorer.joined(scorer.users(params, inputs, layout, jnp.zeros(8, int))))[0]

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
@pytest.mark.slow
def test_ranks_do_not_depend_on_the_batch(pad_scorer, dataset, batch):
    scorer, params, data = pad_scorer
    split = dataset.split("test", 8)
    np.testing.assert_array_equal(ranker(scorer, batch)(params, data, split), ranker(scorer, 5)(params, data, split))


@pytest.mark.parametrize("devices", [1, 2])
def test_ranks_do_not_depend_on_the_number_of_devices(pad_scorer, dataset, monkeypatch, devices):
    needs(devices)
    scorer, params, data = pad_scorer
    split = dataset.split("test", 8)
    four = ranker(scorer, 8)(params, data, split)
    here = jax.devices()[:devices]
    monkeypatch.setattr(jax, "devices", lambda: here)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    params, data = jax.tree.map(np.asarray, (params, data))
    fewer = ranker(scorer, 8)(parallel.replicate(params), parallel.replicate(data), split)
    np.testing.assert_array_equal(fewer, four)
