"""Classes of items by k-means, and how often each user met each class."""

import numpy as np
from jaxtyping import Float, Int

from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError

_ROUNDS = 100  # at most


def kmeans(rows: Float[np.ndarray, "n D"], clusters: int, seed: int) -> Int[np.ndarray, " n"]:
    """The cluster of each row, none of them empty where there are as many different rows: k-means from k-means++
    (Arthur and Vassilvitskii 2007), on rows of length 1.

    A cluster that has lost all rows starts again at the row that is farthest from its centre.
    """
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(length > 0, length, 1)
    random = np.random.default_rng(seed)
    centres = rows[[random.integers(len(rows))]]
    nearest = _distances(rows, centres)[:, 0]
    while len(centres) < clusters:
        share = nearest / nearest.sum() if nearest.sum() > 0 else None
        chosen = rows[[random.choice(len(rows), p=share)]]
        centres = np.concatenate([centres, chosen])
        nearest = np.minimum(nearest, _distances(rows, chosen)[:, 0])
    found = np.full(len(rows), -1)
    for _ in range(_ROUNDS):
        distance = _distances(rows, centres)
        before, found = found, distance.argmin(axis=1)
        nearest = distance[np.arange(len(rows)), found]
        for empty in np.flatnonzero(np.bincount(found, minlength=clusters) == 0):
            several = np.bincount(found, minlength=clusters)[found] > 1
            farthest = np.where(several, nearest, 0).argmax()
            if nearest[farthest] > 0 and several[farthest]:
                found[farthest], nearest[farthest] = empty, 0
        if np.array_equal(found, before):
            break
        sums = np.zeros_like(centres)
        np.add.at(sums, found, rows)
        size = np.bincount(found, minlength=clusters)[:, None]
        centres = np.where(size > 0, sums / np.maximum(size, 1), centres)
    return found


def _distances(rows: Float[np.ndarray, "n D"], centres: Float[np.ndarray, "k D"]) -> Float[np.ndarray, "n k"]:
    """Squared, zero where rounding says less."""
    squares = (rows**2).sum(axis=1, keepdims=True) + (centres**2).sum(axis=1)
    found = squares - 2 * rows @ centres.T
    return np.where(found > 1e-12, found, 0)


def item_classes(
    table: Float[np.ndarray, "I D"], counts: Int[np.ndarray, " I"], clusters: int, seed: int
) -> Int[np.ndarray, " I"]:
    """The class of each item that training met, by its ID vector; -1 for the others, whose vectors say nothing.

    Raises UserError for fewer items than classes.
    """
    met = np.flatnonzero(counts)
    if len(met) < clusters:
        raise UserError(f"config.tune.clusters={clusters} needs as many items, and training met {len(met)}: set fewer")
    classes = np.full(len(counts), -1)
    classes[met] = kmeans(np.asarray(table[met], np.float64), clusters, seed)
    return classes


def preferences(
    dataset: Dataset, classes: Int[np.ndarray, " I"], clusters: int
) -> tuple[Int[np.ndarray, " u"], Float[np.ndarray, "u k"]]:
    """The users with a training event, and the shares of the classes among the events of their training prefixes."""
    cuts, lengths = dataset.cuts, np.diff(dataset.starts)
    users = np.flatnonzero(cuts.train_end > cuts.first)
    place, owner = np.arange(len(dataset.events)), np.repeat(np.arange(dataset.users), lengths)
    inside = (place >= cuts.first[owner]) & (place < cuts.train_end[owner])
    cell = owner[inside] * clusters + classes[dataset.events[inside]]
    found = np.bincount(cell, minlength=dataset.users * clusters).reshape(-1, clusters)[users]
    return users, found / found.sum(axis=1, keepdims=True)
