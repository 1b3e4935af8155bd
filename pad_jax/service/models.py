"""Models in use: what is answered from each, where it came from, and whether there is a newer one."""

import itertools
import json
import os
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open

from pad_jax.data.dataset import frequency_group
from pad_jax.errors import UserError
from pad_jax.models.experts import EXPERTS
from pad_jax.service.titles import Titles
from pad_jax.serving import Model, load
from pad_jax.serving.recommender import FALLBACK

#: Lengths of lists that are made: each is a program of the device. A list is cut to the length that was asked for.
_LENGTHS = (10, 25, 50, 100, 250, 500, 1000)


class Options(NamedTuple):
    """What requests have to share to be answered together."""

    k: int
    exclude_history: bool
    items: tuple[str, ...] | None
    popularity: float
    diversity: float
    explain: bool


class Asked(NamedTuple):
    """The rest of a request for a list."""

    user: str | None
    history: Sequence[str]
    exclude: Sequence[str]
    target: str | None


class Served:
    """A model, and what is made of it once. It does not change."""

    def __init__(self, name: str, model: Model, seal: str = "", unseen: frozenset[str] = frozenset()):
        """
        Args:
            name: what requests call it.
            model: that answers.
            seal: of its file.
            unseen: users whose last event training has not seen.
        """
        self.name, self.model, self.seal, self.unseen = name, model, seal, unseen
        self.loaded = time.time()
        self.number = {item: n for n, item in enumerate(model.item_ids, 1)}
        self.experts: tuple[str, ...] = tuple(model.artifact.scorer.experts)
        counts = model.artifact.counts
        self._counts = None if counts is None else np.asarray(counts)
        known = np.zeros(len(model.item_ids) + 1, np.int64) if self._counts is None else self._counts
        self._groups = np.empty(len(known), object)
        for group, rows in frequency_group(known).items():
            self._groups[rows] = None if self._counts is None else group
        self.titles = Titles(model.titles, known[1:])
        users = [] if model.histories is None else model.histories["user"].to_list()
        self._row = {user: row for row, user in enumerate(users)}
        self._users = sorted(self._row)

    def warm_up(self, batch: int, k: int) -> None:
        """Compiles what the first requests need."""
        for size in sorted({1, min(16, batch), batch}):
            options = Options(min(10, k), True, None, 0.0, 0.0, False)
            self.lists(options, [Asked(None, self.model.item_ids[:3], (), None)] * size)
        last = self.model.item_ids[-1]
        self.lists(options._replace(diversity=0.5), [Asked(None, self.model.item_ids[:3], (), None)])
        self.lists(options._replace(explain=True), [Asked(None, self.model.item_ids[:3], (), last)])
        if self.by:
            self.similar((min(10, k), "fused"), [self.model.item_ids[0]])

    @property
    def by(self) -> list[str]:
        """What `similar` can compare."""
        usable = [expert for expert in self.experts if not EXPERTS[expert].own_score]
        return ["fused", *usable] if usable else []

    @property
    def about(self) -> dict[str, Any]:
        config = self.model.artifact.scorer.config
        return {
            "name": self.name,
            "method": config.method,
            "dataset": config.dataset,
            "items": len(self.number),
            "experts": list(self.experts),
            "similar_by": self.by,
            "users": len(self._users),
            "version": self.seal,
            "loaded": self.loaded,
            "test": self._test,
        }

    @cached_property
    def _test(self) -> dict[str, float] | None:
        """HR@10 and nDCG@10 on the test split, where the run says them."""
        try:
            return {name: float(self.model.results["test"][name]) for name in ("HR@10", "nDCG@10")}
        except (UserError, KeyError, TypeError, ValueError):
            return None

    def item(self, number: int) -> dict[str, Any]:
        """What is said of an item, numbered from 1."""
        return {
            "item": self.model.item_ids[number - 1],
            "title": self.model.titles[number - 1],
            "count": None if self._counts is None else int(self._counts[number]),
            "group": self._groups[number],
        }

    def search(self, query: str, k: int) -> list[dict[str, Any]]:
        """Items by title; the one whose id is the query comes first."""
        found = [place + 1 for place in self.titles.search(query, k)]
        own = self.number.get(query)
        if own is not None:
            found = [own, *(number for number in found if number != own)]
        return [self.item(number) for number in found[:k]]

    def any_users(self, k: int) -> list[str]:
        """Some users."""
        return random.sample(self._users, min(k, len(self._users)))

    def users(self, query: str, k: int) -> list[str]:
        """Users whose ids begin with the query."""
        begin = bisect_left(self._users, query)
        return [user for user in self._users[begin : begin + k] if user.startswith(query)]

    def history(self, user: str) -> list[str] | None:
        """Known items of a user; None for an unknown one."""
        if user not in self._row or self.model.histories is None:
            return None
        return [item for item in self.model.histories["history"][self._row[user]] if item in self.number]

    def lists(self, options: Options, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """An answer to each request. Who has no history that the model knows gets what training met most."""
        known = [[item for item in own.history if item in self.number] for own in asked]
        rows = [row for row, history in enumerate(known) if history]
        answers: list[dict[str, Any]] = [
            {"model": self.name, "version": self.seal, "user": own.user, "known": len(history), "items": []}
            for own, history in zip(asked, known, strict=True)
        ]
        if rows:
            some = [known[row] for row in rows]
            exclude: Any = [asked[row].exclude for row in rows]
            found = self.model.recommend(
                some,
                self._length(options.k),
                options.exclude_history,
                items=options.items,
                exclude=exclude if any(exclude) else (),
                popularity=options.popularity,
                diversity=options.diversity,
                explain=options.explain,
            )
            assert found.parts is not None
            for place, (row, listed) in enumerate(zip(rows, found, strict=True)):
                parts = found.parts[place].tolist()
                answers[row]["items"] = [
                    self.item(self.number[one["item"]])
                    | {
                        "score": one["score"],
                        "expert": one["expert"],
                        "parts": dict(zip(self.experts, own, strict=True)),
                    }
                    | ({"because": one["because"]} if options.explain else {})
                    for one, own in zip(listed["items"][: options.k], parts, strict=False)
                ]
        for row, history in enumerate(known):
            if not history:
                answers[row]["items"] = self._popular(options, set(asked[row].exclude))
        targets = [row for row in rows if asked[row].target is not None]
        of_row: dict[int, float] = {}
        if targets:
            ranks = self.model.ranks([known[row] for row in targets], [str(asked[row].target) for row in targets])
            of_row = dict(zip(targets, ranks.tolist(), strict=True))
        for row, own in enumerate(asked):
            if own.target is not None:
                rank = of_row.get(row)
                answers[row]["target"] = self.item(self.number[own.target]) | {"rank": rank}
        return answers

    def similar(self, options: tuple[int, str], items: Sequence[str]) -> list[dict[str, Any]]:
        """Similar items of each item that the model knows, by (k, by)."""
        k, by = options
        found = self.model.similar_items(items, self._length(k), by)
        return [
            self.item(self.number[item])
            | {"items": [self.item(self.number[one["item"]]) | {"score": one["score"]} for one in row["items"][:k]]}
            for item, row in zip(items, found, strict=True)
        ]

    def _length(self, k: int) -> int:
        return min(next((length for length in _LENGTHS if length >= k), k), len(self.number))

    def _popular(self, options: Options, exclude: set[str]) -> list[dict[str, Any]]:
        allowed = None if options.items is None else set(options.items)
        found = []
        for number in self._by_count:
            item = self.model.item_ids[number - 1]
            if item not in exclude and (allowed is None or item in allowed):
                about = self.item(number)
                found.append(about | {"score": float(about["count"]), "expert": FALLBACK, "parts": {}})
                if options.explain:
                    found[-1]["because"] = None
                if len(found) == options.k:
                    break
        return found

    @cached_property
    def _by_count(self) -> list[int]:
        """Item numbers, what training met most first. Raises UserError for a model without counts."""
        return [self.number[item] for item in self.model.popular(len(self.number)).items[0]]


@dataclass(eq=False)
class Source:
    """Where a model comes from, and comes from again when it is a newer one."""

    name: str
    folder: Path  # that holds model.safetensors
    load: Callable[[], Model]
    unseen: frozenset[str] = frozenset()

    def served(self) -> Served:
        """The model as it is now. Raises UserError as `load`."""
        for _ in range(3):
            seal = seal_of(self.folder)
            model = self.load()
            if seal == seal_of(self.folder):  # otherwise it was replaced meanwhile
                return Served(self.name, model, seal[:12], self.unseen)
        raise UserError(f"{self.folder} is replaced again and again: wait until it rests")

    @property
    def signature(self) -> tuple[int, ...] | None:
        """Changes when the file does; None while there is none."""
        try:
            found = (self.folder / "model.safetensors").stat()
            return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        except OSError:
            return None


def sources(
    folders: Sequence[Path], read: Callable[[Path], Model] = load, unseen: frozenset[str] = frozenset()
) -> list[Source]:
    """Where the models of workdirs and of folders of `Model.save` come from, each by a name of its own.

    `read` gives the model of a folder, `unseen` are users whose last event training has not seen.
    """
    found: list[Source] = []
    for folder in folders:
        saved = os.path.lexists(folder / "model.safetensors")
        base = folder.resolve().parent.name if saved and folder.name == "model" else folder.resolve().name
        taken = {source.name for source in found}
        name = next(name for n in itertools.count(1) if (name := f"{base}-{n}" if n > 1 else base) not in taken)
        found.append(Source(name, folder if saved else folder / "model", partial(read, folder), unseen))
    return found


def seal_of(folder: Path) -> str:
    """The checksum that a model's file says of itself; "" of earlier versions and where there is none."""
    try:
        with safe_open(folder / "model.safetensors", "numpy") as file:
            return str(json.loads((file.metadata() or {}).get("about", "{}")).get("sha256", ""))
    except Exception:  # whatever it is, `load` says it
        return ""
