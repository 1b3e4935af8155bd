"""The baselines against plain numpy, and their numbers on Prime Pantry."""

import hashlib
import itertools
import os
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from pad_jax.data import pantry
from pad_jax.data.dataset import from_sequences
from pad_jax.evaluation import baselines
from pad_jax.evaluation.baselines import BASELINES, baseline_ranks, scores_of
from pad_jax.evaluation.metrics import hit_ratio, ndcg
from pad_jax.text import encode
from pad_jax.text.lexical import Lexicon, with_padding
from pad_jax.text.table import read_table
from tests.support.data import ROOT
from tests.support.ranks import brute_force_rank


def test_baselines_are_the_definitions(dataset, text):
    """With dictionaries and loops: counts at three distances, decayed profiles, whitening by SVD, tf-idf by Counter."""
    split = dataset.split("test", 8)
    items = dataset.items + 1
    follows = np.zeros((items, items))
    for user in range(dataset.users):
        prefix = dataset.events[dataset.starts[user] : dataset.starts[user + 1]][:-2]
        for first, second in itertools.combinations(range(len(prefix)), 2):
            follows[prefix[first], prefix[second]] += {1: 1, 2: 0.5, 3: 0.25}.get(second - first, 0)
    centred = text[1:].astype(np.float64) - text[1:].mean(axis=0)
    u, _, _ = np.linalg.svd(centred, full_matrices=False)
    white = np.concatenate([np.zeros((1, u.shape[1])), u / np.linalg.norm(u, axis=1, keepdims=True)])
    words = np.concatenate([np.zeros((1, len(lexicon(dataset.titles)[0]))), lexicon(dataset.titles)])
    cosine = text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-12)
    results = baseline_ranks(dataset, {"test": split}, text)
    assert list(results) == list(BASELINES)
    for user in range(dataset.users):
        history = [i for i in split.inputs[user] if i]
        decay = 0.6 ** np.arange(len(history))[::-1]
        profiles = [(decay[:, None] * rows[history]).sum(axis=0) for rows in (white, words)]
        parts = {
            "popularity": dataset.counts / dataset.counts.max(),
            "counts": np.log1p(follows[history[-1]]),
            "cosine": cosine @ cosine[history[-1]],
            "whitened": white @ profiles[0] / np.linalg.norm(profiles[0]),
            "words": words @ profiles[1] / np.linalg.norm(profiles[1]),
        }
        for name, weights in BASELINES.items():
            score = sum(weight * parts[part] for part, weight in weights.items())
            expected = brute_force_rank(np.round(score, 6), split.target[user], split.history[user])
            assert abs(results[name]["test"][user] - expected) <= 0.5, (name, user)
    without = baseline_ranks(dataset, {"test": split}, None)
    missing = {name for name, ranks in without.items() if ranks is None}
    assert missing == {"text_cosine", "whitened", "counts_whitened", "counts_whitened_words"}
    np.testing.assert_array_equal(without["counts"]["test"], results["counts"]["test"])


def lexicon(titles):
    """Unit tf-idf rows, a feature a column."""
    found = []
    for title in titles:
        words = title.lower().split()
        found.append(Counter([*words, *itertools.pairwise(words)]))
    features = sorted({feature for counter in found for feature in counter}, key=str)
    idf = {f: 1 + np.log((1 + len(titles)) / (1 + sum(f in counter for counter in found))) for f in features}
    rows = np.array([[(1 + np.log(c[f])) * idf[f] if f in c else 0 for f in features] for c in found])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_words_as_the_table_have_a_cosine_and_no_whitening(dataset):
    splits = {"test": dataset.split("test", 8)}
    rows = with_padding(Lexicon.fit(dataset.titles).rows(dataset.titles))
    found = baseline_ranks(dataset, splits, rows)
    assert [name for name, ranks in found.items() if ranks is None] == [
        n for n, w in BASELINES.items() if "whitened" in w
    ]
    np.testing.assert_array_equal(found["words"]["test"], baseline_ranks(dataset, splits, None)["words"]["test"])
    dense = baseline_ranks(dataset, splits, rows.toarray())["text_cosine"]["test"]
    np.testing.assert_allclose(found["text_cosine"]["test"], dense, atol=0.5)


def test_blocks_change_nothing(dataset, text, monkeypatch):
    splits = {"test": dataset.split("test", 8)}
    whole = baseline_ranks(dataset, splits, text)
    monkeypatch.setattr(baselines, "_CELLS", 3 * (dataset.items + 1))
    for name, ranks in baseline_ranks(dataset, splits, text).items():
        np.testing.assert_allclose(ranks["test"], whole[name]["test"], atol=0.5, err_msg=name)


def test_items_of_the_same_vector_are_ties_of_the_text_scorers():
    """Exact ones, wherever they stand: a matrix product rounds the same row differently in different places."""
    titles = [f"item {n}" for n in range(1, 1003)]
    data = from_sequences("ties", titles, titles, ["u"], [np.arange(1, 1003)])
    table = np.random.default_rng(0).normal(size=(7, 384)).astype(np.float32)[np.arange(1003) % 7]
    items = np.arange(1, 201)
    of = scores_of(data, table)["cosine"](items[:, None])
    scores = np.array([of(user) for user in range(200)])
    for first in range(7):
        assert (scores[:, first::7] == scores[:, [first]]).all()
    np.testing.assert_allclose(scores[items - 1, items], 1, atol=1e-6)


# scorer -> HR@10, nDCG@10 in percent on valid and test, by a script of its own with dense matrices
PANTRY = {
    "popularity": (1.080, 0.511, 0.451, 0.225),
    "counts": (6.091, 3.889, 4.662, 3.076),
    "text_cosine": (6.216, 3.730, 5.951, 3.624),
    "whitened": (6.829, 3.962, 6.814, 4.025),
    "words": (7.055, 4.057, 6.790, 3.969),
    "counts_whitened": (8.733, 5.615, 7.956, 5.117),
    "counts_whitened_words": (8.981, 5.699, 8.259, 5.224),
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
    splits = {name: data.split(name, 20) for name in ("valid", "test")}
    for scorer, found in baseline_ranks(data, splits, text).items():
        for column, name in enumerate(splits if found else ()):
            expected = PANTRY[scorer][2 * column : 2 * column + 2]
            metrics = 100 * hit_ratio(found[name], 10).mean(), 100 * ndcg(found[name], 10).mean()
            np.testing.assert_allclose(metrics, expected, atol=0.01, err_msg=f"{scorer} {name}")
