"""The dataset: users' events in time order, item texts, the leave-one-out split, frequency buckets."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from pad_jax.errors import UserError

SplitName = Literal["valid", "test"]

#: Groups of items by training count (inclusive bounds), warmest first. Paper, Fig. 2; the bounds are the
#: official code's, which leaves items without a training event out: they are `unseen` here.
FREQUENCY_GROUPS = {"warm": (51, None), "median": (7, 50), "cold": (1, 6), "unseen": (0, 0)}


class Split(NamedTuple):
    """One evaluation split of U users. 0 is padding; `inputs` is left-padded, `history` right-padded."""

    inputs: Int32[np.ndarray, "U L"]
    target: Int32[np.ndarray, " U"]
    history: Int32[np.ndarray, "U H"]  # every item the user met before the target, once each


@dataclass(frozen=True)
class Dataset:
    """U users' events over items 1..N; row 0 is padding everywhere.

    `events[starts[u] : starts[u + 1]]` are the items of user u in time order. The last event of a user is the
    test target, the one before it the validation target, the rest is the training prefix.
    """

    name: str
    item_ids: Sequence[str] = field(repr=False)
    titles: Sequence[str] = field(repr=False)
    user_ids: Sequence[str] = field(repr=False)
    events: Int32[np.ndarray, " M"] = field(repr=False)
    starts: Int[np.ndarray, " _"] = field(repr=False)
    note: str = ""  # one line that is printed whenever the dataset is used

    def __post_init__(self):
        lengths = np.diff(self.starts)
        if len(lengths) == 0 or lengths.min() < 3:
            raise UserError(f"{self.name}: every user needs at least 3 events (train, valid, test)")

    @property
    def users(self) -> int:
        return len(self.user_ids)

    @property
    def items(self) -> int:
        return len(self.item_ids)

    @cached_property
    def item_list_sha256(self) -> str:
        """Identity of the item list: a text table belongs to a dataset when this agrees."""
        return hashlib.sha256("\n".join(self.item_ids).encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Identity of items, titles and events."""
        digest = hashlib.sha256(self.item_list_sha256.encode())
        digest.update("\n".join(self.titles).encode())
        digest.update(np.ascontiguousarray(self.events, np.int32).tobytes())
        digest.update(np.ascontiguousarray(self.starts, np.int64).tobytes())
        return digest.hexdigest()

    @cached_property
    def counts(self) -> Int[np.ndarray, " I"]:
        """How often each item stands in the training prefixes (validation and test targets do not count)."""
        is_training = np.ones(len(self.events), bool)
        is_training[self.starts[1:] - 1] = False
        is_training[self.starts[1:] - 2] = False
        return np.bincount(self.events[is_training], minlength=self.items + 1)

    def train_windows(self, length: int) -> Int32[np.ndarray, "U W"]:
        """The latest `length` + 1 events of each training prefix, left-padded: inputs [:, :-1], targets [:, 1:]."""
        return _last(self.events, self.starts[:-1], self.starts[1:] - 2, length + 1)

    def train_prefixes(self) -> Int32[np.ndarray, "U H"]:
        """All events of each training prefix, left-padded."""
        return self.train_windows(int(np.diff(self.starts).max()) - 3)

    def split(self, name: SplitName, length: int) -> Split:
        """The `valid` or `test` split: leave-one-out, the latest `length` events as input."""
        ends = self.starts[1:] - (2 if name == "valid" else 1)
        longest = int((ends - self.starts[:-1]).max())
        history = np.sort(_last(self.events, self.starts[:-1], ends, longest), axis=1)[:, ::-1]
        repeated = np.zeros(history.shape, bool)
        repeated[:, 1:] = history[:, 1:] == history[:, :-1]
        return Split(
            inputs=_last(self.events, self.starts[:-1], ends, length),
            target=self.events[ends],
            history=np.where(repeated, 0, history).astype(np.int32),
        )


def _last(events, begins, ends, width: int) -> Int32[np.ndarray, "U W"]:
    """Rows of the last `width` events of events[begin:end], left-padded with 0."""
    index = ends[:, None] + np.arange(-width, 0)
    return np.where(index >= begins[:, None], events[np.maximum(index, 0)], 0).astype(np.int32)


def frequency_buckets(counts: Int[np.ndarray, " I"], buckets: int) -> tuple[Int32[np.ndarray, " I"], list[int]]:
    """Buckets of items so that each holds about 1/`buckets` of the training events (paper, section 3.4).

    Items are ranked by training count, descending, ties by item number; a bucket closes as soon as its own count
    reaches total/`buckets`, and the next starts at zero, as in the official code. Bucket 1 is the warmest,
    `buckets` the coldest, 0 is padding.

    Returns the bucket of every item [N+1] and the cuts: the rank at which each bucket but the last ends.

    Differs: the official code ranks with an unstable sort; ties are by item number here.
    """
    order = np.argsort(-counts[1:], kind="stable") + 1
    share = counts[1:].sum() / buckets
    cuts: list[int] = []
    inside = 0
    for rank, count in enumerate(counts[order], 1):
        inside += count
        if inside >= share and len(cuts) < buckets - 1:
            cuts.append(rank)
            inside = 0
    bucket = np.zeros(len(counts), np.int32)
    bucket[order] = 1 + np.searchsorted(cuts, np.arange(len(order)), side="right")
    return bucket, cuts


def frequency_group(counts: Int[np.ndarray, " X"]) -> dict[str, Bool[np.ndarray, " X"]]:
    """Masks of `FREQUENCY_GROUPS` over an array of training counts."""
    return {
        name: (counts >= low) & (counts <= (np.inf if high is None else high))
        for name, (low, high) in FREQUENCY_GROUPS.items()
    }


def from_sequences(
    name: str,
    item_ids: Sequence[str],
    titles: Sequence[str],
    user_ids: Sequence[str],
    sequences: Sequence[np.ndarray | list[int]],
    note: str = "",
) -> Dataset:
    """A Dataset from one list of item numbers (1..N) per user."""
    starts = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    events = np.concatenate([np.asarray(s, np.int32) for s in sequences]) if len(sequences) else np.zeros(0, np.int32)
    return Dataset(name, item_ids, titles, user_ids, events, starts, note)
