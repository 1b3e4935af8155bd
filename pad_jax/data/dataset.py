"""The dataset: users' events in time order, item texts, splits, frequency buckets."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Num

from pad_jax.errors import UserError

SplitName = Literal["valid", "test"]
SPLITS: tuple[SplitName, SplitName] = ("valid", "test")

#: Groups of items by training count (inclusive bounds), warmest first. Paper, Fig. 2; the bounds are the
#: official code's, which leaves items without a training event out: they are `unseen` here.
FREQUENCY_GROUPS = {"warm": (51, None), "median": (7, 50), "cold": (1, 6), "unseen": (0, 0)}
#: Groups of users by how many items they have met before their target.
HISTORY_GROUPS = {"short": (1, 5), "medium": (6, 9), "long": (10, None)}


@dataclass(frozen=True)
class ItemLists:
    """Lists of item numbers of any length, one behind the other: list n is values[starts[n] : starts[n + 1]]."""

    values: Int32[np.ndarray, " E"]
    starts: Int64[np.ndarray, " _"]

    @property
    def width(self) -> int:
        """The length of the longest."""
        return int(np.diff(self.starts).max(initial=0))

    @property
    def lengths(self) -> Int64[np.ndarray, " _"]:
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, lists: Any) -> Int32[np.ndarray, "*lists H"]:
        """Some of them, right-padded with 0 to the length of the longest of all."""
        begins, ends = self.starts[:-1][lists], self.starts[1:][lists]
        index = np.asarray(begins)[..., None] + np.arange(self.width)
        return np.where(index < np.asarray(ends)[..., None], self.values.take(index, mode="clip"), 0)


class Split(NamedTuple):
    """One evaluation split of the S users who have a target in it."""

    user: Int32[np.ndarray, " S"]
    inputs: Int32[np.ndarray, "S L"]  # left-padded with 0
    target: Int32[np.ndarray, " S"]  # the first one
    history: ItemLists  # every item the user met before it, once each
    targets: ItemLists  # every item of the split, once each


def without_targets(inputs: Int[np.ndarray, "S L"]) -> Split:
    """Users of whom nothing but these histories is known, left-padded with 0."""
    users = np.arange(len(inputs), dtype=np.int32)
    nothing = ItemLists(np.zeros(0, np.int32), np.zeros(len(inputs) + 1, np.int64))
    return Split(users, inputs, np.zeros_like(users), nothing, nothing)


class Cuts(NamedTuple):
    """Where the events of each user are split; all numbers count from the first event of the first user."""

    first: Int64[np.ndarray, " U"]  # what training and encoder see begins here; events before are masked
    train_end: Int64[np.ndarray, " U"]  # behind the last event of the training prefix
    valid: Int64[np.ndarray, " U"]  # the validation target; -1: none
    test: Int64[np.ndarray, " U"]


def leave_one_out(starts: Int64[np.ndarray, " _"], least: int = 3, keep: int = 0) -> Cuts:
    """The last event of a user is the test target, the one before it the validation target, the rest trains.

    Users with fewer than `least` events have no targets: all their events train, but for a single one, which has
    nothing to predict. `keep` is how many of the latest events are used; 0: all.
    """
    begins, ends = starts[:-1], starts[1:]
    count = ends - begins
    targeted = count >= least
    train_end = np.where(targeted, ends - 2, np.where(count == 1, begins, ends))
    first = np.maximum(begins, ends - keep) if keep else begins
    return Cuts(np.minimum(first, train_end), train_end, *(np.where(targeted, ends - n, -1) for n in (2, 1)))


@dataclass(frozen=True)
class Dataset:
    """U users' events over items 1..N; row 0 is padding everywhere.

    `events[starts[u] : starts[u + 1]]` are the items of user u in time order, and `cuts` says which of them train and
    which are targets. Raises UserError where an evaluation split would be empty, but without `holdout`.
    """

    name: str
    item_ids: Sequence[str] = field(repr=False)
    titles: Sequence[str] = field(repr=False)
    user_ids: Sequence[str] = field(repr=False)
    events: Int32[np.ndarray, " M"] = field(repr=False)
    starts: Int64[np.ndarray, " _"] = field(repr=False)
    cuts: Cuts = field(repr=False)
    note: str = ""  # one line that is printed whenever the dataset is used
    own_texts: Sequence[str] = field(default=(), repr=False)  # of the items, where they are not the titles
    account: str = ""  # what was read and what became of it, in one line
    until: str | int | float | None = None  # time of the last event, as `config.data.time` takes it
    holdout: bool = True  # False: every event trains, and no user has a target

    def __post_init__(self):
        for name in SPLITS if self.holdout else ():
            if not len(self._targets(name)[0]):
                raise UserError(f"{self.name}: no user has a {name} target with an event before it")

    @property
    def users(self) -> int:
        return len(self.user_ids)

    @property
    def items(self) -> int:
        return len(self.item_ids)

    @property
    def texts(self) -> Sequence[str]:
        """What is encoded of each item."""
        return self.own_texts or self.titles

    @cached_property
    def item_list_sha256(self) -> str:
        """Identity of the item list: a text table belongs to a dataset when this agrees."""
        return hashlib.sha256("\n".join(self.item_ids).encode()).hexdigest()

    @cached_property
    def texts_sha256(self) -> str:
        """Identity of what is encoded of the items, in their order."""
        return hashlib.sha256("\0".join(self.texts).encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Identity of items, texts and events."""
        digest = hashlib.sha256(self.item_list_sha256.encode())
        digest.update("\n".join(self.texts).encode())
        digest.update(np.ascontiguousarray(self.events, np.int32).tobytes())
        whole = np.array_equal(self.cuts.first, self.starts[:-1])
        for numbers in (self.starts, *(self.cuts[1:] if whole else self.cuts)):
            digest.update(np.ascontiguousarray(numbers, np.int64).tobytes())
        return digest.hexdigest()

    def without_holdout(self) -> "Dataset":
        """The same with every event from `cuts.first` on in training, and nobody with a target."""
        nobody = np.full(self.users, -1, np.int64)
        return replace(self, cuts=Cuts(self.cuts.first, self.starts[1:], nobody, nobody), holdout=False)

    @cached_property
    def counts(self) -> Int[np.ndarray, " I"]:
        """How often each item stands in the training prefixes (validation and test targets do not count)."""
        lengths, place = np.diff(self.starts), np.arange(len(self.events))
        is_training = place >= np.repeat(self.cuts.first, lengths)
        is_training &= place < np.repeat(self.cuts.train_end, lengths)
        return np.bincount(self.events[is_training], minlength=self.items + 1)

    @cached_property
    def training_users(self) -> Int[np.ndarray, " train"]:
        """The users whose training prefix has two events or more: the others have nothing to predict."""
        return np.flatnonzero(self.cuts.train_end - self.cuts.first >= 2)

    def train_windows(
        self, length: int, every: bool = False
    ) -> tuple[Int32[np.ndarray, "rows W"], Int[np.ndarray, " rows"]]:
        """`length` + 1 events of training prefixes, left-padded: inputs [:, :-1], targets [:, 1:]; and whose they are,
        as places among `training_users`.

        The latest ones of each user, or with `every` as many windows as make each event but the first a target once.
        """
        users = self.training_users
        begins, ends = self.cuts.first[users], self.cuts.train_end[users]
        count = -(-(ends - begins - 1) // length) if every else np.ones(len(users), np.int64)
        owner = np.repeat(np.arange(len(users)), count)
        earlier = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        return _last(self.events, begins[owner], ends[owner] - earlier * length, length + 1), owner

    def met_in_training(self) -> ItemLists:
        """The items of each of `training_users` before its targets, once each, ascending."""
        users = self.training_users
        return _distinct(self.events, self.starts[:-1][users], self.cuts.train_end[users])

    def split(self, name: SplitName, length: int) -> Split:
        """The `valid` or `test` split: the users with a target, the latest `length` events before it as input."""
        users, place = self._targets(name)
        begins, ends = self.starts[:-1][users], self.starts[1:][users]
        if name == "valid":
            ends = np.where(self.cuts.test[users] < 0, ends, self.cuts.test[users])
        return Split(
            user=users.astype(np.int32),
            inputs=_last(self.events, self.cuts.first[users], place, length),
            target=self.events[place],
            history=_distinct(self.events, begins, place),
            targets=_distinct(self.events, place, ends),
        )

    def _targets(self, name: SplitName) -> tuple[Int[np.ndarray, " S"], Int64[np.ndarray, " S"]]:
        """Users with a target and an event before it, and where the target stands."""
        place = getattr(self.cuts, name)
        users = np.flatnonzero(place > self.cuts.first)
        return users, place[users]


def _last(events, begins, ends, width: int) -> Int32[np.ndarray, "U W"]:
    """Rows of the last `width` events of events[begin:end], left-padded with 0."""
    index = ends[:, None] + np.arange(-width, 0)
    return np.where(index >= begins[:, None], events[np.maximum(index, 0)], 0).astype(np.int32)


def _distinct(events, begins, ends) -> ItemLists:
    """The different items of events[begin:end] for each pair, ascending."""
    lengths = ends - begins
    owner = np.repeat(np.arange(len(begins)), lengths)
    before = np.concatenate([[0], np.cumsum(lengths)])
    items = events[np.arange(before[-1]) - np.repeat(before[:-1] - begins, lengths)]
    order = np.lexsort((items, owner))
    owner, items = owner[order], items[order]
    new = np.ones(len(items), bool)
    new[1:] = (owner[1:] != owner[:-1]) | (items[1:] != items[:-1])
    return ItemLists(items[new], np.searchsorted(owner[new], np.arange(len(begins) + 1)))


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


def frequency_group(
    counts: Num[np.ndarray, " X"], groups: Mapping[str, tuple[int, int | None]] = FREQUENCY_GROUPS
) -> dict[str, Bool[np.ndarray, " X"]]:
    """Masks of groups with these bounds over an array of counts."""
    return {
        name: (counts >= low) & (counts <= (np.inf if high is None else high)) for name, (low, high) in groups.items()
    }


def from_sequences(
    name: str,
    item_ids: Sequence[str],
    titles: Sequence[str],
    user_ids: Sequence[str],
    sequences: Sequence[np.ndarray | list[int]],
    note: str = "",
) -> Dataset:
    """A Dataset from one list of item numbers per user, split by `leave_one_out`.

    Args:
        name: of the dataset.
        item_ids: of items 1..N.
        titles: likewise.
        user_ids: of all users.
        sequences: item numbers (1..N) of each user, oldest first.
        note: one line that is printed whenever the dataset is used.

    Raises UserError for a user with fewer than 3 events.
    """
    if min(map(len, sequences), default=0) < 3:
        raise UserError(f"{name}: every user needs at least 3 events (train, valid, test)")
    starts = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    events = np.concatenate([np.asarray(s, np.int32) for s in sequences])
    return Dataset(name, item_ids, titles, user_ids, events, starts, leave_one_out(starts), note)
