"""What lists are like as a whole: how much of the catalogue they show, how new and how different their items are."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from pad_jax.data.dataset import ItemLists
from pad_jax.evaluation.metrics import METRICS, ListMetric
from pad_jax.text.transform import unit

_USERS = 512  # whose items' vectors are in memory at once


@dataclass(frozen=True, eq=False)
class Lists:
    """The lists of U users, without what each has met, best first, and what is known of the items."""

    items: Int[np.ndarray, "U K"]  # item numbers; 0 where there are fewer candidates
    counts: Int[np.ndarray, " I"]  # training events of each item
    targets: ItemLists  # what each user met then
    text: Float[np.ndarray, "I E"] | None = None  # vectors of the titles, row 0 unused; None: there are none

    def __len__(self) -> int:
        return len(self.items)

    def of(self, users: Bool[np.ndarray, " U"]) -> "Lists":
        """The lists of some users."""
        starts = np.concatenate([[0], np.cumsum(np.diff(self.targets.starts)[users])])
        kept = self.targets.values[np.repeat(users, np.diff(self.targets.starts))]
        part = replace(self, items=self.items[users], targets=ItemLists(kept, starts))
        whole = self.similarity  # made once
        part.__dict__["similarity"] = None if whole is None else whole[users]
        return part

    def shown(self, k: int) -> Int[np.ndarray, " I"]:
        """How often each item stands in the first k of a list."""
        return np.bincount(self.items[:, :k].ravel(), minlength=len(self.counts))[1:]

    def mean(self, values: Float[np.ndarray, " I"], k: int) -> Float[np.ndarray, " U"]:
        """Of a value of each item, over the first k of each list; 0 for an empty one."""
        filled = self.items[:, :k] > 0
        return np.where(filled, values[self.items[:, :k]], 0).sum(axis=1) / np.maximum(filled.sum(axis=1), 1)

    @cached_property
    def hits(self) -> Bool[np.ndarray, "U K"]:
        """Which items of the lists are targets of the user."""
        user = np.repeat(np.arange(len(self)), np.diff(self.targets.starts))
        size = len(self.counts)
        wanted = user * size + self.targets.values
        listed = np.arange(len(self))[:, None] * size + self.items
        return np.isin(listed, wanted) & (self.items > 0)

    @cached_property
    def similarity(self) -> Float[np.ndarray, "U K"] | None:
        """Column k - 1: the mean cosine of two of the first k items of a list; 0 for fewer than two."""
        if self.text is None:
            return None
        found = np.zeros(self.items.shape)
        for begin in range(0, len(self), _USERS):
            items = self.items[begin : begin + _USERS]
            rows = unit(self.text[items].astype(np.float32) * (items > 0)[..., None])
            total = (np.cumsum(rows, axis=1) ** 2).sum(axis=2) - np.cumsum((rows**2).sum(axis=2), axis=1)
            count = np.cumsum(items > 0, axis=1)
            found[begin : begin + _USERS] = total / np.maximum(count * (count - 1), 1)
        return found


def coverage(lists: Lists, k: int) -> float:
    """The share of all items that stand in the first k of a list or more."""
    return float((lists.shown(k) > 0).mean())


def gini(lists: Lists, k: int) -> float:
    """The Gini coefficient of how often items are shown: 0 if all are alike, near 1 if few have all the places."""
    shown = np.sort(lists.shown(k))
    place = np.arange(1, len(shown) + 1)
    return float(((2 * place - len(shown) - 1) * shown).sum() / (len(shown) * max(shown.sum(), 1)))


def novelty(lists: Lists, k: int) -> Float[np.ndarray, " U"]:
    """-log2 of the chance that a training event is of the item, in bits, every item having one event more."""
    counts = lists.counts.astype(np.float64) + 1
    return lists.mean(-np.log2(counts / counts[1:].sum()), k)


def popularity(lists: Lists, k: int) -> Float[np.ndarray, " U"]:
    """Training events of an item."""
    return lists.mean(lists.counts.astype(np.float64), k)


def diversity(lists: Lists, k: int) -> Float[np.ndarray, " U"] | None:
    """1 - the mean cosine of the titles' vectors of two items of a list; None without a text table or for one item."""
    return None if lists.similarity is None or k < 2 else 1 - lists.similarity[:, k - 1]


def recall(lists: Lists, k: int) -> Float[np.ndarray, " U"]:
    """The share of a user's targets that stand in the first k. One that was met before never does."""
    return lists.hits[:, :k].sum(axis=1) / np.diff(lists.targets.starts)


def precision(lists: Lists, k: int) -> Float[np.ndarray, " U"]:
    """The share of the first k places that hold a target."""
    return lists.hits[:, :k].sum(axis=1) / k


def average_precision(lists: Lists, k: int) -> Float[np.ndarray, " U"]:
    """The precision at each target's place, summed and divided by the most targets that k places can hold."""
    hits = lists.hits[:, :k]
    at_place = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return (at_place * hits).sum(axis=1) / np.minimum(np.diff(lists.targets.starts), k)


METRICS.register("coverage", ListMetric(coverage))
METRICS.register("Gini", ListMetric(gini))
METRICS.register("novelty", ListMetric(novelty))
METRICS.register("popularity", ListMetric(popularity))
METRICS.register("diversity", ListMetric(diversity))
METRICS.register("recall", ListMetric(recall, several=True))
METRICS.register("precision", ListMetric(precision, several=True))
METRICS.register("MAP", ListMetric(average_precision, several=True))
