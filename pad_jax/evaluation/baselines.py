"""Baselines that learn nothing or almost nothing: what a trained model has to beat."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float

from pad_jax.data.dataset import Dataset, Split
from pad_jax.evaluation.metrics import MOST_K
from pad_jax.text.transform import unit

BASELINES = ("popularity", "markov", "text_cosine", "markov_text")
_ROWS = 512


def baseline_ranks(
    dataset: Dataset, split: Split, text: Float[np.ndarray, "I E"] | None
) -> Iterator[tuple[str, Float[np.ndarray, " U"] | None]]:
    """The rank of every user's target under each of `BASELINES`; None where a text table would be needed.

    popularity   the item's training count
    markov       how often the item followed the user's last item in training prefixes; ties by training count
    text_cosine  cosine of the titles' vectors, item and last item
    markov_text  log(1 + count(last -> i)) + 2 cos(i, last) + cos(i, the one before)

    The history is masked, ties share the mean rank. A user with one event has no item before the last; the term is 0.
    """
    popularity = dataset.counts.astype(np.float64)
    follows = _follows(dataset)
    cosine = None if text is None else cosine_of(text)

    def counted(last):
        return np.asarray(follows[last].todense(), dtype=np.float64)

    scorers: dict[str, Callable[..., Any] | None] = {
        "popularity": lambda last, _: np.broadcast_to(popularity, (len(last), len(popularity))),
        "markov": lambda last, _: counted(last) + popularity / (popularity.max() + 1),
        "text_cosine": None,
        "markov_text": None,
    }
    if cosine is not None:
        scorers["text_cosine"] = lambda last, _: cosine(last)
        scorers["markov_text"] = lambda last, before: np.log1p(counted(last)) + 2 * cosine(last) + cosine(before)
    for name, score in scorers.items():
        yield name, None if score is None else ranks_by(score, split)


def cosine_of(text: Float[np.ndarray, "I E"]) -> Callable[[Any], Float[np.ndarray, "B I"]]:
    """A function from items to their cosines with all items; items of the same vector are ties, to the last bit."""
    rows, which = np.unique(text.astype(np.float32), axis=0, return_inverse=True)
    rows = unit(rows)
    which = which.reshape(-1)
    return lambda items: (rows[which[items]] @ rows.T)[:, which]


def _follows(dataset: Dataset) -> Any:
    """Sparse counts [N+1, N+1]: how often the column's item came right after the row's in a training prefix."""
    position = np.arange(len(dataset.events) - 1)
    last = dataset.cuts.train_end - 1  # the last event of each training prefix
    user = np.searchsorted(dataset.starts, position, side="right") - 1
    inside = (position >= dataset.cuts.first[user]) & (position < last[user])
    pairs = dataset.events[:-1][inside], dataset.events[1:][inside]
    size = dataset.items + 1
    return scipy.sparse.csr_matrix((np.ones(len(pairs[0])), pairs), shape=(size, size))


def ranks_by(score: Callable[..., Any], split: Split) -> Float[np.ndarray, " U"]:
    """The rank of every user's target by `score`, from the last item and the one before of B users to [B, I]."""
    ranks = np.zeros(len(split.target))
    for begin in range(0, len(ranks), _ROWS):
        rows = slice(begin, begin + _ROWS)
        inputs, target, history = split.inputs[rows], split.target[rows], split.history[rows]
        scores = np.array(score(inputs[:, -1], inputs[:, -2]), dtype=np.float64)
        index = np.arange(len(target))
        masked = (history == target[:, None]).any(axis=1)
        own = scores[index, target][:, None]
        np.put_along_axis(scores, history, -np.inf, axis=1)
        scores[:, 0] = -np.inf
        higher = (scores > own).sum(axis=1)
        equal = (scores == own).sum(axis=1) - 1
        behind = np.maximum(np.isfinite(scores).sum(axis=1), MOST_K) + 1
        ranks[rows] = np.where(masked, behind, 1 + higher + equal / 2)
    return ranks
