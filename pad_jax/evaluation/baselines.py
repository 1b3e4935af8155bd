"""Baselines that learn nothing or almost nothing: what a trained model has to beat.

A baseline is a weighted sum of scores between a user's latest events and every item:

    popularity   the item's training count, as a share of the largest
    counts       log(1 + C[last, item]), C a weighted count of how often the item followed the last one in training
                 prefixes, at distance 1, 2 and 3
    cosine       of the titles' vectors, item and last item
    whitened     cosine of the whitened vectors of item and profile: the latest events, each `DECAY` times the next
    words        the same of tf-idf vectors of the titles

The few weights were chosen on the validation split of Prime Pantry (`benchmarks/baselines.py`), and hold everywhere.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from pad_jax.data.dataset import Dataset, Split
from pad_jax.evaluation import popularity
from pad_jax.evaluation.metrics import MOST_K
from pad_jax.text.lexical import Lexicon, unit_sparse, with_padding
from pad_jax.text.transform import unit, whiten

#: Weights of the scores. What breaks ties of counts is far below their smallest difference.
BASELINES: Mapping[str, Mapping[str, float]] = {
    "popularity": {"popularity": 1},
    "counts": {"counts": 1, "popularity": 1e-4},
    "text_cosine": {"cosine": 1},
    "whitened": {"whitened": 1},
    "words": {"words": 1},
    "counts_whitened": {"counts": 1, "whitened": 2},
    "counts_whitened_words": {"counts": 1, "whitened": 1, "words": 2},
}
DISTANCES = (1.0, 0.5, 0.25)
DECAY = 0.6
EXPONENT = 1.0
_CELLS = 1 << 22  # scores that are in memory at once
_SEEN, _FEW = 10, 1024  # the places that `popularity.SHOWN` are of; items that are looked at first
#: From the latest events [B, L] of B users to a function of a user's number among them: the scores [I] of all items.
Score = Callable[[Int[np.ndarray, "B L"]], Callable[[int], Float[np.ndarray, " I"]]]


class RankedBaseline(NamedTuple):
    """By split: the rank of every user's target, and that under each of `betas` of the popularity dial, where infinity
    says that it is not among the first `_SEEN`."""

    betas: tuple[float, ...]
    ranks: dict[str, Float[np.ndarray, " U"]]
    over: dict[str, Float[np.ndarray, "U G"]]


def baseline_ranks(
    dataset: Dataset, splits: Mapping[str, Split], text: Float[np.ndarray, "I E"] | scipy.sparse.csr_matrix | None
) -> dict[str, dict[str, Float[np.ndarray, " U"]] | None]:
    """`RankedBaseline.ranks` alone, see `ranked_baselines`."""
    return {name: found and found.ranks for name, found in ranked_baselines(dataset, splits, text, ()).items()}


def ranked_baselines(
    dataset: Dataset,
    splits: Mapping[str, Split],
    text: Float[np.ndarray, "I E"] | scipy.sparse.csr_matrix | None,
    grid: Sequence[float] = popularity.GRID,
) -> dict[str, RankedBaseline | None]:
    """Every user's target in each split under each of `BASELINES`; None where a text table would be needed.

    Sparse rows of `text`, those of the words, have no `whitened`: that takes every direction of the vectors, and words
    have as many as there are titles. The history is masked, ties share the mean rank. The unit of `grid` is of users of
    the first split, see `popularity.betas`.
    """
    scores, counts = scores_of(dataset, text), dataset.counts
    sums = {name: weights for name, weights in BASELINES.items() if set(weights) <= set(scores)}
    betas: dict[str, tuple[float, ...]] = dict.fromkeys(sums, ())
    if grid:
        some = popularity.sample(next(iter(splits.values())))
        deviation = {name: np.zeros(len(some.target)) for name in sums}
        for user, rows in _scored(sums, scores, some, len(counts)):
            for name, row in rows.items():
                deviation[name][user] = row[1:].std()
        betas = {name: popularity.betas(deviation[name], counts, grid) for name in sums}
    dials = {name: _Dial(betas[name], counts) for name in sums}
    found = {name: RankedBaseline(betas[name], {}, {}) for name in sums}
    for place, split in splits.items():
        for name in sums:
            found[name].ranks[place] = np.zeros(len(split.target))
            found[name].over[place] = np.zeros((len(split.target), len(betas[name])))
        for user, rows in _scored(sums, scores, split, len(counts)):
            target, left_out = split.target[user], _left_out(split.history[user])
            for name, row in rows.items():
                found[name].ranks[place][user] = _rank(row, target, left_out)
                if grid:
                    found[name].over[place][user] = dials[name].ranks(row, target, left_out)
    return {name: found.get(name) for name in BASELINES}


def _scored(
    sums: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Score], split: Split, items: int
) -> Iterator[tuple[int, dict[str, Float[np.ndarray, " I"]]]]:
    """Each user of a split, and the scores of all items under each of `sums`."""
    needed = {part: scores[part] for weights in sums.values() for part in weights}
    for rows in blocks_of(split, items):
        made = {part: score(split.inputs[rows]) for part, score in needed.items()}
        for user in range(len(split.inputs[rows])):
            row = {part: of(user) for part, of in made.items()}
            yield (
                rows.start + user,
                {
                    name: sum_of(row[part] if w == 1 else np.float32(w) * row[part] for part, w in weights.items())
                    for name, weights in sums.items()
                },
            )


class _Dial:
    """The popularity dial at some betas. Most targets are far behind: where more of a few items are ahead of one than
    `_SEEN` and the history together, nobody has to look at the others."""

    def __init__(self, betas: Sequence[float], counts: Int[np.ndarray, " I"]):
        self.offsets = popularity.offset(betas, counts)
        self.few = slice(1, None, max(len(counts) // _FEW, 1))
        self.of_few = self.offsets[:, self.few].copy()

    def ranks(self, scores: Float[np.ndarray, " I"], target: Any, left_out: Int[np.ndarray, " H"]) -> list[float]:
        """`rank_in` under each beta; infinity behind the first `_SEEN`."""
        ranks = [np.inf] * len(self.offsets)
        own = self.offsets[:, target] + scores[target]
        ahead = (self.of_few + scores[self.few] > own[:, None]).sum(axis=1)
        for g in np.flatnonzero(ahead <= _SEEN + len(left_out)):
            rank = _rank(scores + self.offsets[g], target, left_out)
            ranks[g] = rank if rank <= _SEEN else np.inf
        return ranks


def scores_of(dataset: Dataset, text: Float[np.ndarray, "I E"] | scipy.sparse.csr_matrix | None) -> dict[str, Score]:
    """The scores by name; those of vectors need `text`."""
    counts = dataset.counts.astype(np.float32)
    share = counts / max(counts.max(), 1)
    follows = next_counts(dataset)
    follows.data = np.log1p(follows.data)
    words = with_padding(Lexicon.fit(dataset.texts).rows(dataset.texts))
    by_word = words.T.tocsr()
    scores: dict[str, Score] = {
        "popularity": lambda inputs: lambda user: share,
        "counts": lambda inputs: _rows_of(follows[inputs[:, -1]]),
        "words": lambda inputs: _rows_of(unit_sparse(_profile(inputs, len(counts)) @ words).dot(by_word)),
    }
    if scipy.sparse.issparse(text):  # it is `words`
        scores["cosine"] = lambda inputs: _rows_of(words[inputs[:, -1]].dot(by_word))
    elif text is not None:
        whole = whiten(text[1:], EXPONENT)(text)
        whole[0] = 0
        (plain, of_plain), (white, of_white) = _distinct(text.astype(np.float32)), _distinct(whole)
        plain = unit(plain)
        scores |= {
            "cosine": lambda inputs: _products(plain[of_plain[inputs[:, -1]]], plain, of_plain),
            "whitened": lambda inputs: _products(unit(_profile(inputs, len(counts)) @ whole), white, of_white),
        }
    return scores


def _rows_of(matrix: scipy.sparse.csr_matrix) -> Callable[[int], Float[np.ndarray, " I"]]:
    def row(user: int) -> Float[np.ndarray, " I"]:
        found, part = np.zeros(matrix.shape[1], matrix.dtype), slice(*matrix.indptr[user : user + 2])
        found[matrix.indices[part]] = matrix.data[part]
        return found

    return row


def _products(
    users: Float[np.ndarray, "B E"], rows: Float[np.ndarray, "R E"], which: Int[np.ndarray, " I"]
) -> Callable[[int], Float[np.ndarray, " I"]]:
    """With distinct rows, `which` of them each item has: items of the same vector are ties, to the last bit."""
    products = users @ rows.T
    return lambda user: products[user].take(which)


def _distinct(rows: Float[np.ndarray, "I E"]) -> tuple[Float[np.ndarray, "R E"], Int[np.ndarray, " I"]]:
    found, which = np.unique(rows, axis=0, return_inverse=True)
    return found, which.reshape(-1)


def sum_of(parts: Iterable[Float[np.ndarray, " I"]]) -> Float[np.ndarray, " I"]:
    """Of one or more, from left to right."""
    return functools.reduce(np.add, parts)


def _profile(inputs: Int[np.ndarray, "B L"], items: int) -> scipy.sparse.csr_matrix:
    """[B, I]: the weight of each item in the profile of a user whose latest events these are."""
    user, place = np.nonzero(inputs)
    weight = np.float32(DECAY) ** (inputs.shape[1] - 1 - place).astype(np.float32)
    return scipy.sparse.csr_matrix((weight, (user, inputs[user, place])), shape=(len(inputs), items))


def next_counts(dataset: Dataset) -> scipy.sparse.csr_matrix:
    """[I, I] float32: how often the column's item followed the row's in a training prefix, weighted by `DISTANCES`."""
    size = dataset.items + 1
    user = np.repeat(np.arange(dataset.users), np.diff(dataset.starts))
    position = np.arange(len(dataset.events))
    trained = (position >= dataset.cuts.first[user]) & (position < dataset.cuts.train_end[user])
    total = scipy.sparse.csr_matrix((size, size), dtype=np.float32)
    for distance, weight in enumerate(DISTANCES, 1):
        both = trained[:-distance] & trained[distance:] & (user[:-distance] == user[distance:])
        pairs = dataset.events[:-distance][both], dataset.events[distance:][both]
        values = np.full(both.sum(), weight, np.float32)
        total = total + scipy.sparse.csr_matrix((values, pairs), shape=(size, size))
    return total.tocsr()


def blocks_of(split: Split, items: int) -> list[slice]:
    """Users whose scores of all items are in memory at once."""
    rows = max(_CELLS // items, 1)
    return [slice(begin, begin + rows) for begin in range(0, len(split.target), rows)]


def ranks_by(score: Callable[[Any], Any], split: Split, items: int) -> Float[np.ndarray, " U"]:
    """The rank of every user's target by `score`, from the latest events of B users to [B, I]; `items` is I."""
    ranks = [
        ranks_in(score(split.inputs[rows]), split.target[rows], split.history[rows]) for rows in blocks_of(split, items)
    ]
    return np.concatenate(ranks) if ranks else np.zeros(0)


def ranks_in(
    scores: Float[np.ndarray, "B I"], target: Int[np.ndarray, " B"], history: Int[np.ndarray, "B H"]
) -> Float[np.ndarray, " B"]:
    """`rank_in` of each user."""
    return np.array([rank_in(*row) for row in zip(scores, target, history, strict=True)], np.float64)


def rank_in(scores: Float[np.ndarray, " I"], target: Any, history: Int[np.ndarray, " H"]) -> float:
    """1 + #higher + #equal / 2 among the items that are not in the history (0 is padding, and no item, too)."""
    return _rank(scores, target, _left_out(history))


def _left_out(history: Int[np.ndarray, " H"]) -> Int[np.ndarray, " _"]:
    """The items that are no candidates."""
    return np.append(history[history > 0], 0)


def _rank(scores: Float[np.ndarray, " I"], target: Any, left_out: Int[np.ndarray, " _"]) -> float:
    """`rank_in`: what is counted once over all items is corrected by the few that are left out; nothing is copied."""
    if (left_out == target).any():
        return float(max(len(scores) - len(left_out), MOST_K) + 1)
    own, others = scores[target], scores[left_out]
    higher = np.count_nonzero(scores > own) - np.count_nonzero(others > own)
    equal = np.count_nonzero(scores == own) - np.count_nonzero(others == own) - 1
    return float(1 + higher + equal / 2)
