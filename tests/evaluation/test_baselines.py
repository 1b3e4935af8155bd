"""The baselines against plain numpy, and their numbers on Prime Pantry."""

import hashlib
import itertools
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from pad_jax.data import pantry
from pad_jax.evaluation.baselines import BASELINES, baseline_ranks, cosine_of
from pad_jax.evaluation.metrics import hit_ratio, ndcg
from pad_jax.text import encode
from pad_jax.text.table import read_table
from tests.support.data import ROOT
from tests.support.ranks import brute_force_rank


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


# scorer -> HR@10, nDCG@10 in percent on valid and test
PANTRY = {
    "popularity": (1.080, 0.511, 0.451, 0.225),
    "markov": (5.827, 3.692, 4.304, 2.901),
    "text_cosine": (6.216, 3.730, 5.951, 3.624),
    "markov_text": (8.158, 5.270, 7.381, 4.789),
}


def encoded_once(data, settings) -> np.ndarray:
    """The text table of a dataset, kept in the user's cache directory for as long as the encoding code is the same."""
    digest = hashlib.sha256("".join(version(name) for name in ("torch", "transformers")).encode())
    for code in sorted((ROOT / "pad_jax" / "text").glob("*.py")):
        digest.update(code.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pad_jax" / "tests"
    path = cache / f"{data.name}-{data.item_list_sha256[:8]}-{digest.hexdigest()[:8]}.safetensors"
    if not path.exists():
        encode.encode_table(path, data, settings)
    return read_table(path, data)[0]


@pytest.mark.slow
def test_prime_pantry_baselines(pantry_config):
    data = pantry.load(pantry_config)
    text = None
    if encode.available():
        text = encoded_once(data, pantry_config.text)
    for column, name in enumerate(("valid", "test")):
        for scorer, ranks in baseline_ranks(data, data.split(name, 20), text):
            if ranks is not None:
                expected = PANTRY[scorer][2 * column : 2 * column + 2]
                found = 100 * hit_ratio(ranks, 10).mean(), 100 * ndcg(ranks, 10).mean()
                np.testing.assert_allclose(found, expected, atol=0.01, err_msg=f"{scorer} {name}")
