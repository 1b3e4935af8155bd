"""A trained model that scores: lists for histories, vectors, and models of a changed catalogue."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Bool, Float, Int, Int32
from safetensors.numpy import save

from pad_jax.batching.layout import pack
from pad_jax.data.assemble import Events, histories_of
from pad_jax.data.frames import Table, frame_of
from pad_jax.data.table import event_columns, read_events
from pad_jax.data.tables import as_id
from pad_jax.errors import UserError
from pad_jax.evaluation.metrics import summarize
from pad_jax.evaluation.popularity import offset as popularity_offset
from pad_jax.files import check_name, write_atomically
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import Items
from pad_jax.models.towers import unit
from pad_jax.serving import changes, programs
from pad_jax.serving.artifact import Artifact
from pad_jax.serving.directions import nearest
from pad_jax.serving.lists import Recommendations
from pad_jax.workdir.results import as_frame, read_results

_USERS = (1, 16, 256)  # histories of one call of the device
FALLBACK = "fallback"  # the expert of a list for a user without history
_MET = 32  # items of a history that there is always room for: few shapes, each compiled once
_POOL = 100  # candidates that a diverse list is picked from, or four times its length
_MODEL = "model.safetensors"
_NO_HISTORIES = (
    "The model has no histories of users, which are in its data: load it with events=.., or call with_events(..)"
)

#: A row that lists are made for: the item ids of a history, oldest first, or the id of a user.
Row = Iterable[Any] | str | int | np.integer
#: Ids for all rows, or a collection of them for each row.
Ids = Iterable[Any]


class Model:
    """A trained model over its items, new ones included: lists, vectors, changes of the catalogue.

    `pad_jax.fit` and `pad_jax.load` give one. It never changes: `add_items` and its like give another one.
    """

    def __init__(self, artifact: Artifact, histories: pl.DataFrame | None = None, workdir: Path | None = None):
        """
        Args:
            artifact: what was trained.
            histories: (user, history) of the users that can be asked for by id; None: of none.
            workdir: of the run that made it, for `results`.
        """
        self.artifact, self.histories, self.workdir = artifact, histories, workdir
        self.item_ids, self.titles = artifact.item_ids, artifact.titles

    def __repr__(self) -> str:
        config, experts = self.artifact.scorer.config, self.artifact.scorer.experts
        return f"Model({config.method} of {config.dataset}: {len(self.item_ids):,} items, experts {experts})"

    @cached_property
    def results(self) -> dict[str, Any]:
        """What `results.json` of the run holds, as it was measured when it was trained; empty without a workdir.

        Raises DamagedError for a damaged file.
        """
        return {} if self.workdir is None else read_results(self.workdir)

    @property
    def knows_new_items(self) -> bool:
        """Whether it can score items that training never saw."""
        return any(EXPERTS[expert].knows_new for expert in self.artifact.scorer.experts)

    def recommend(
        self,
        histories: Iterable[Row],
        k: int = 10,
        exclude_history: bool = True,
        *,
        items: Ids | None = None,
        exclude: Ids = (),
        popularity: float = 0.0,
        diversity: float = 0.0,
        explain: bool = False,
        strict: bool = False,
    ) -> Recommendations:
        """Top-k lists for histories of item ids, oldest event first, or for users whose histories the model has.

        Ids may be numbers. An encoder sees the latest `data.length` known events; the whole history is left out of the
        lists, unless `exclude_history` is False.

        With `diversity` d the list is picked greedily among the best max(100, 4 k) candidates, by the largest
        (1 - d) * relevance - d * cosine with the most similar item that was picked before (maximal marginal relevance,
        Carbonell & Goldstein, SIGIR 1998). Relevance is the score, scaled so that these candidates span 0 to 1; cosines
        are of the fused vectors of `similar_items`. The first item stays the first, and `scores` stay scores.

        With `explain`, `because` is the event of the history without which the item's score would be lowest, if that is
        below what it is: each of the latest `data.length` known events is left out in turn, exactly. None where every
        event lowers the score, and for a history of one event.

        Args:
            histories: a list of item ids or the id of a user each.
            k: length of the lists.
            exclude_history: whether items of the history are left out.
            items: ids of the only candidates, as what is in stock; for all rows, or a collection for each row. Unknown
                ones are none.
            exclude: ids that are left out, likewise.
            popularity: adds popularity * log(1 + training events of the item) to every score.
            diversity: from 0, the best k, to below 1, where the score hardly counts.
            explain: whether the lists say `because`.
            strict: raise what is wrong with a row instead of giving it an error and no items.

        Raises UserError for a k outside 1 to the number of items, for what is no number, for a string in place of a
        list, for `items` of which the model knows none, and with `strict` for a history without any known item and a
        user without a history.
        """
        self._check_k(k)
        popularity = _dial("popularity", popularity)
        if not 0 <= _dial("diversity", diversity) < 1:
            raise UserError(f"diversity must be at least 0 and below 1, not {diversity}")
        known, users, errors = self._known(histories)
        allowed, of_rows = self._asked("items", items, len(known))
        left_out, of_exclude = self._asked("exclude", exclude, len(known))
        if items is not None and of_rows is None and not len(allowed):
            raise UserError("items: the model knows none of them, so that nothing is left to list")
        for row, own in enumerate(of_rows or ()):
            if not len(own):
                errors[row] = errors[row] or f"row {row}: the model knows none of its `items`"
        wrong = [error for error in errors if error]
        if strict and wrong:
            raise UserError(wrong[0])
        fine = [row for row, error in enumerate(errors) if not error]
        offset = self._offset
        if popularity:
            offset = offset + popularity_offset(popularity, self.artifact.known_counts)
        if items is not None and of_rows is None:
            offset = np.where(np.isin(np.arange(len(offset)), allowed), offset, -np.inf)
        if of_exclude is None:
            offset = np.where(np.isin(np.arange(len(offset)), left_out), -np.inf, offset)
        met = [np.unique(known[row]) if exclude_history else known[row][:0] for row in fine]
        if of_exclude is not None:
            met = [np.union1d(own, of_exclude[row]) for own, row in zip(met, fine, strict=True)]
        only = None if of_rows is None else [of_rows[row] for row in fine]
        pool = min(max(_POOL, 4 * k), len(self.item_ids)) if diversity else 0
        found = self._lists([known[row] for row in fine], k, np.float32(offset), met, only, pool, diversity, explain)
        ids, titles = self._names
        names, count = np.array(["", *self.artifact.scorer.experts], object), len(known)
        numbers, experts, because = (np.zeros((count, k), np.int32) for _ in range(3))
        scores = np.full((count, k), -np.inf, np.float32)
        parts = np.zeros((count, k, len(names) - 1), np.float32)
        numbers[fine], scores[fine], experts[fine], parts[fine], because[fine] = found
        events = ids[because]
        events[because == 0] = None
        return Recommendations(
            ids[numbers],
            titles[numbers],
            scores,
            names[experts],
            events if explain else None,
            users if any(user is not None for user in users) else (),
            errors if wrong else (),
            parts,
        )

    def _lists(self, known, k: int, offset, met, only, pool: int, diversity: float, explain: bool):
        """(items, scores, 1 + number of the expert, parts [B, k, K], item of the event that counts most) [B, k] each, 0
        for none."""
        width, most = _width(met), _width(only) if only is not None else 0
        directions = self._directions("fused") if pool else self._items.vectors
        parts = []
        for rows, encoded in self._batches(known):
            masks = [
                _padded(lists[rows.start : rows.stop], encoded.batch, n)
                for lists, n in ((met, width), (only or [], most))
            ]
            inputs = encoded.users, self._items, self._says, offset, *masks, directions, np.float32(diversity)
            found = (np.asarray(x)[: len(rows)] for x in programs.top(self.artifact.scorer, *inputs, k, pool))
            items, scores, experts, own = found
            there = np.isfinite(scores)
            items, experts = np.where(there, items, 0), np.where(there, experts + 1, 0)
            own = np.where(there[:, :, None], own, 0)
            because = self._because(known[rows.start : rows.stop], items) if explain else np.zeros_like(items)
            parts.append((items, scores, experts, own, because))
        if not parts:
            none = np.zeros((0, k))
            return [none, none, none, np.zeros((0, k, len(self.artifact.scorer.experts))), none]
        return [np.concatenate(x) for x in zip(*parts, strict=True)]

    def _because(self, known: Sequence[np.ndarray], found: Int32[np.ndarray, "B k"]) -> Int32[np.ndarray, "B k"]:
        """The event of each history without which each of its items would score least; 0 where there is none."""
        length = self.artifact.scorer.config.data.length
        without, owner, event = [], [], []
        for row, history in enumerate(known):
            latest = history[-length - 1 :]  # one more, which is seen where another one is not
            for place in range(max(len(latest) - length, 0), len(latest) if len(latest) > 1 else 0):
                without.append(np.delete(latest, place))
                owner.append(row)
                event.append(latest[place])
        lost = np.zeros(found.shape, np.float32)
        because = np.zeros_like(found)
        whole, less = self._scores(known, found), self._scores(without, found[owner])
        for row, item, scores in zip(owner, event, less, strict=True):
            larger = whole[row] - scores >= np.maximum(lost[row], np.finfo(np.float32).tiny)  # of equal ones the latest
            lost[row] = np.where(larger, whole[row] - scores, lost[row])
            because[row] = np.where(larger, item, because[row])
        return np.where(found > 0, because, 0)

    def _scores(self, known: Sequence[np.ndarray], items: Int32[np.ndarray, "B k"]) -> Float[np.ndarray, "B k"]:
        """Of some items for each history, without any offset."""
        found = np.zeros(items.shape, np.float32)
        for rows, encoded in self._batches(known):
            own = np.zeros((encoded.batch, items.shape[1]), np.int32)
            own[: len(rows)] = items[rows.start : rows.stop]
            scores = programs.scores(self.artifact.scorer, encoded.users, self._items, own, len(self.item_ids) + 1)
            found[rows.start : rows.stop] = np.asarray(scores)[: len(rows)]
        return found

    def similar_items(
        self, items: Sequence[Any], k: int = 10, by: str = "fused", *, strict: bool = False
    ) -> Recommendations:
        """The k items whose vectors have the largest cosine with that of each item; scores are cosines.

        `by` is an expert whose vectors are compared, as "id" or "text" of PAD and "learned" or "words" of blend, or
        "fused": the vectors of all experts side by side, each times its gate, whose inner product with a user is the
        score. Neither the item itself nor a retired one is listed.

        Args:
            items: ids.
            k: length of the lists.
            by: what is compared.
            strict: raise for an unknown item instead of giving its row an error and no items.

        Raises UserError for a bad k and for an expert that is not there or has no vectors.
        """
        self._check_k(k)
        if isinstance(items, str):
            raise UserError("items are a list of ids, not a string: write similar_items([..])")
        directions = self._directions(by)
        found = [self._number.get(_as_id(item) or "") for item in items]
        errors = [
            f"item {item!r} is no item of the model" if n is None else None
            for item, n in zip(items, found, strict=True)
        ]
        if strict and any(errors):
            raise UserError(next(error for error in errors if error))
        padded = np.zeros(1 << max(len(found) - 1, 0).bit_length(), np.int32)  # few shapes, each compiled once
        padded[: len(found)] = [number or 0 for number in found]
        numbers, scores = (np.asarray(x)[: len(found)] for x in nearest(directions, padded, self._gone, k))
        scores = np.where(padded[: len(found), None] > 0, scores, -np.inf)
        numbers = np.where(np.isfinite(scores), numbers, 0)
        ids, titles = self._names
        experts = np.where(numbers > 0, by, "").astype(object)
        return Recommendations(ids[numbers], titles[numbers], scores, experts, errors=errors if any(errors) else ())

    def popular(self, k: int = 10) -> Recommendations:
        """One list of what training met most, for whoever has no history: its expert is `fallback`, a score the count.

        Raises UserError for a model of an earlier version, which has no counts.
        """
        counts = self.artifact.known_counts[1:]
        listed = np.flatnonzero(np.isfinite(self._gone[1:]))
        items = 1 + listed[np.argsort(-counts[listed], kind="stable")][None, :k]
        ids, titles = self._names
        experts = np.full(items.shape, FALLBACK, object)
        return Recommendations(ids[items], titles[items], counts[items - 1].astype(np.float32), experts)

    def ranks(self, histories: Sequence[Sequence[str]], targets: Sequence[str]) -> Float[np.ndarray, " B"]:
        """The rank of each history's target among all items but those of the history; see `rank_by_counting`.

        Raises UserError as `recommend`, and for a target that the model does not know.
        """
        unknown = [target for target in targets if str(target) not in self._number]
        if unknown or len(targets) != len(histories):
            what = f"target {unknown[0]!r} is no item of the model" if unknown else "each history needs a target"
            raise UserError(f"{what}: {len(histories)} histories, {len(targets)} targets")
        known, wanted = self._strictly(histories), self._strictly([[target] for target in targets])
        width = _width([np.unique(h) for h in known])
        ranks = np.zeros(len(known), np.float32)
        for rows, encoded in self._batches(known):
            met, target = np.zeros((encoded.batch, width), np.int32), np.ones(encoded.batch, np.int32)
            for row, history in enumerate(known[r] for r in rows):
                distinct = np.unique(history)
                met[row, : len(distinct)] = distinct
                target[row] = wanted[rows[row]][0]
            found = programs.ranks(self.artifact.scorer, encoded.users, self._items, self._offset, target, met)
            ranks[rows.start : rows.stop] = np.asarray(found)[: len(rows)]
        return ranks

    def item_vectors(self) -> Float[np.ndarray, "N F"]:
        """One vector per item, in the order of `item_ids`: its inner product with a user's vector is the score.

        Raises UserError for a model with an expert whose score is no inner product.
        """
        self._check_vectors()
        vectors = np.asarray(self._items.vectors)[1:]
        return np.column_stack([vectors, self._popular[1:]]) if self.artifact.popularity else vectors

    def user_vectors(self, histories: Sequence[Sequence[str]]) -> Float[np.ndarray, "B F"]:
        """One vector per history. Raises UserError as `recommend` and `item_vectors`."""
        self._check_vectors()
        known = self._strictly(histories)
        joined = self.artifact.scorer.joined
        parts = [np.asarray(joined(encoded.users))[: len(rows)] for rows, encoded in self._batches(known)]
        vectors = np.concatenate(parts) if parts else np.zeros((0, self._items.vectors.shape[1]), np.float32)
        return np.pad(vectors, ((0, 0), (0, 1)), constant_values=1) if self.artifact.popularity else vectors

    def save_vectors(self, path: str | Path) -> None:
        """`item_vectors` as tensor `items` of a safetensors file, whose header has the item ids as JSON."""
        about = {"item_ids": json.dumps(list(self.item_ids))}
        write_atomically(Path(path), save({"items": np.ascontiguousarray(self.item_vectors())}, about))

    def with_items(
        self,
        item_ids: Sequence[str],
        titles: Sequence[str],
        vectors: Float[np.ndarray, "R E"] | None = None,
        texts: Sequence[str] | None = None,
    ) -> "Model":
        """The same with items more that training never saw; `add_items` also encodes their titles.

        `vectors` are their titles' as the text encoder gives them, those of several tables side by side; where all
        tables are of words, none. `texts` are what such a table reads, where that is not the titles.

        An expert that cannot know them, as that of IDs, has nothing to say: its gate is 0 and the others are scaled to
        sum to one. The aligned expert has an ID row of zeros, that of codes the codes of the title, and the gate is
        that of the coldest bucket; `blend` multiplies it by `blend.new`. In a history, a new item has a vector of zeros
        for an expert that does not know it.
        Raises UserError for an id that is there already, for vectors of another shape or with NaN, and for a model that
        knows no text.
        """
        if not self.knows_new_items:
            raise UserError("a model of item IDs alone cannot score items that training never saw")
        names = [str(item) for item in item_ids]
        return self._of(changes.added(self.artifact, names, titles, titles if texts is None else texts, vectors))

    def add_items(
        self,
        item_ids: Sequence[Any],
        titles: Sequence[str],
        vectors: Float[np.ndarray, "R E"] | None = None,
        texts: Sequence[str] | None = None,
    ) -> "Model":
        """A model with items more, that training never saw, known by their texts; see `with_items`.

        Args:
            item_ids: of the new items.
            titles: what lists show of them.
            vectors: of their texts, as the encoder gives them; None: they are encoded here by the run's encoder, if
                the model reads more than words.
            texts: what is encoded, as `table.text` puts it together; None: the titles.

        Raises UserError as `with_items`, and where torch or the encoder is missing.
        """
        item_ids = [_as_id(item) or str(item) for item in item_ids]
        vectors = changes.encoded(self.artifact, titles if texts is None else texts, vectors)
        return self.with_items(item_ids, titles, vectors, texts)

    def retire_items(self, item_ids: Sequence[Any]) -> "Model":
        """A model that never lists these items again; in histories it knows them as before, and they have vectors.

        Raises UserError for an unknown item.
        """
        gone = {self.item_ids[number - 1] for number in self._of_model(item_ids)}
        return self._of(replace(self.artifact, retired=self.artifact.retired | gone))

    def retitle(
        self,
        item_ids: Sequence[Any],
        titles: Sequence[str],
        vectors: Float[np.ndarray, "R E"] | None = None,
        texts: Sequence[str] | None = None,
    ) -> "Model":
        """A model in which items have other titles and, for experts that read text, other text; what training learned
        of the items themselves stays: ID rows, corrections, counts.

        Args are those of `add_items`. Raises UserError for an unknown item, as `add_items`, and for a model with an
        expert that reads text and knows no new one.
        """
        numbers = np.array(self._of_model(item_ids), np.int32)
        return self._of(changes.retitled(self.artifact, numbers, titles, titles if texts is None else texts, vectors))

    def with_events(self, events: Table) -> "Model":
        """A model that knows the histories of the users in a table of events, and no others.

        It is read as the reader `table` reads `table.events`, a data frame or a file, with the columns of the model's
        settings. Raises UserError as that does.
        """
        return Model(self.artifact, histories_of(self._events(events)), self.workdir)

    def evaluate(self, events: Table | None = None) -> pl.DataFrame:
        """(scorer, split, group, users, HR@10, ..) in a table: how well the targets of users were ranked.

        Without `events`: of every phase of the run and every baseline, as it was measured when it was trained; users
        are grouped by how often training met their target and by how much they had met. With `events`: of this model
        now, for the first event of each user in there after the history that the model has of that user.

        Raises UserError where there are no results, or no histories.
        """
        if events is None:
            if not self.results:
                raise UserError("the model was loaded without its run, which has the results: bring events")
            return as_frame(self.results)
        if self.histories is None:
            raise UserError(_NO_HISTORIES)
        ids = set(self.item_ids)
        next_ones = self._events(events).frame
        next_ones = next_ones.sort("time", maintain_order=True) if "time" in next_ones.columns else next_ones
        next_ones = next_ones.filter(pl.col("item").is_in(list(ids))).unique("user", keep="first", maintain_order=True)
        kept = [[item for item in history if item in ids] for history in self.histories["history"]]
        known = self.histories.with_columns(history=pl.Series(kept, dtype=pl.List(pl.String)))
        known = known.filter(pl.col("history").list.len() > 0)
        asked = next_ones.join(known, on="user", how="inner", maintain_order="left")
        if not asked.height:
            raise UserError("no user has an event of a known item in there and a history in the model")
        ranks = self.ranks(asked["history"].to_list(), asked["item"].to_list())
        target = np.array([self._number[item] for item in asked["item"]], np.int32)
        met = asked["history"].list.n_unique().to_numpy().astype(np.int64)
        config = self.artifact.scorer.config
        measured = summarize(config, ranks, target, np.asarray(self.artifact.known_counts, np.int64), met)
        return as_frame({"phases": {config.method: {"events": measured}}, "baselines": {}})

    def save(self, folder: str | Path, histories: bool = False) -> None:
        """Writes what `pad_jax.load` reads, items that were added, retired and retitled with the rest.

        Args:
            folder: a new one, or one that holds a model, which is replaced.
            histories: whether those of the users are kept, too. They are personal data: lists for users' ids need
                them, and nothing else does.

        Raises UserError for a folder that holds something else, and for `histories` that the model does not have.
        """
        folder = Path(folder)
        check_name(folder, "folder")
        if os.path.lexists(folder) and not (
            folder.is_dir() and (os.path.lexists(folder / _MODEL) or not any(folder.iterdir()))
        ):
            raise UserError(f"{folder} is there and holds no model: name a new folder")
        if histories and self.histories is None:
            raise UserError(_NO_HISTORIES)
        identity = {**self.artifact.identity, "saved": True}
        self.artifact.save(folder, identity, self.results, self.histories if histories else None)

    def _of(self, artifact: Artifact) -> "Model":
        return Model(artifact, self.histories, self.workdir)

    def _events(self, events: Table) -> Events:
        table = self.artifact.scorer.config.table
        if isinstance(events, str | Path):
            return read_events(Path(events), table)
        return read_events(Path("events"), table, frame_of(events, list(event_columns(table).values()), "events"))

    def _of_model(self, item_ids: Sequence[Any]) -> list[int]:
        """Numbers of different items. Raises UserError for an unknown one and for one that is named twice."""
        if isinstance(item_ids, str):
            raise UserError("item ids are a list, not a string")
        names = [_as_id(item) or str(item) for item in item_ids]
        wrong = next((name for name, n in Counter(names).items() if n > 1 or name not in self._number), None)
        if wrong is not None:
            raise UserError(f"item {wrong!r} is {'named twice' if wrong in self._number else 'no item of the model'}")
        return [self._number[name] for name in names]

    def _check_vectors(self) -> None:
        own = [expert for expert in self.artifact.scorer.experts if EXPERTS[expert].own_score]
        if own:
            raise UserError(
                f"the score of the expert {own[0]!r} is not an inner product: there are lists, but no vectors"
            )

    def _check_k(self, k: int) -> None:
        whole = isinstance(k, int | np.integer) and not isinstance(k, bool)
        if not whole or not 1 <= k <= len(self.item_ids):
            raise UserError(f"k must be from 1 to the number of items, {len(self.item_ids):,}, not {k}")

    @cached_property
    def _gone(self) -> Float[np.ndarray, " I"]:
        """-inf for items that are retired, else 0."""
        gone = np.array([False, *(item in self.artifact.retired for item in self.item_ids)])
        return np.where(gone, np.float32(-np.inf), np.float32(0))

    @cached_property
    def _popular(self) -> Float[np.ndarray, " I"]:
        """What the model's popularity dial adds to the score of every item."""
        beta = self.artifact.popularity
        return popularity_offset(beta, self.artifact.known_counts) if beta else np.zeros_like(self._gone)

    @cached_property
    def _offset(self) -> Float[np.ndarray, " I"]:
        """What is added to the score of every item."""
        return self._popular + self._gone

    @cached_property
    def _of_users(self) -> dict[str, int]:
        """The row of each user in `histories`."""
        assert self.histories is not None
        return {user: row for row, user in enumerate(self.histories["user"])}

    def _directions(self, by: str) -> Float[Array, "I F"]:
        """Item vectors at length 1. Raises UserError for an expert that has none."""
        experts = self.artifact.scorer.experts
        usable = [expert for expert in experts if not EXPERTS[expert].own_score]
        if (by != "fused" and by not in usable) or not usable:
            why = "has no item vectors" if by in experts or not usable else "is no expert of the model"
            names = ", ".join(map(repr, ["fused", *usable] if usable else []))
            raise UserError(f"by={by!r} {why}" + (f": it is one of {names}" if names else ""))
        if by not in self._directed:
            self._directed[by] = unit(self._items.vectors if by == "fused" else self._on_device[by])
        return self._directed[by]

    @cached_property
    def _directed(self) -> dict[str, Float[Array, "I F"]]:
        return {}

    @cached_property
    def _items(self) -> Items:
        return self.artifact.scorer.weighted(self._on_device, jnp.asarray(self.artifact.gates))

    @cached_property
    def _says(self) -> Bool[Array, "I K"]:
        """Which experts say anything of an item."""
        return jnp.asarray(self.artifact.gates > 0)

    @cached_property
    def _met(self) -> Int[Array, " I"]:
        """Training events of each item; zeros for a model of an earlier version, whose gate does not ask."""
        counts = self.artifact.counts
        return jnp.zeros(len(self.item_ids) + 1, jnp.int32) if counts is None else jnp.asarray(counts)

    @cached_property
    def _on_device(self) -> dict[str, Any]:
        return jax.tree.map(jnp.asarray, self.artifact.vectors)

    @cached_property
    def _names(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids and titles by item number; "" for 0."""
        return np.array(["", *self.item_ids], object), np.array(["", *self.titles], object)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {item: n for n, item in enumerate(self.item_ids, 1)}

    def _numbers(self, item_ids: Iterable[Any]) -> Int32[np.ndarray, " H"]:
        """Of items that the model knows."""
        found = (self._number.get(item if type(item) is str else _as_id(item) or "") for item in item_ids)
        return np.array([number for number in found if number is not None], np.int32)

    def _known(self, histories: Iterable[Row]) -> tuple[list[np.ndarray], list[str | None], list[str | None]]:
        """(item numbers, the user, what is wrong) of each row.

        Raises UserError for a string in place of a list, and for the id of a user where the model has no histories.
        """
        if isinstance(histories, str):
            raise UserError("rows are a list of histories or of users, not a string: write recommend([[..], [..]])")
        known, users, errors = [], [], []
        for row, history in enumerate(histories):
            user, error = None, None
            if isinstance(history, str | int | float | np.generic) or not isinstance(history, Iterable):
                user = _as_id(history)
                if user is not None and self.histories is None:
                    raise UserError(
                        f"{user!r} is no history, which is a list of item ids, as in [[..], [..]]. {_NO_HISTORIES}"
                    )
                place = None if user is None else self._of_users.get(user)
                if place is None:
                    error = (
                        f"row {row}: {history!r} is neither a user whose history the model has nor a list of item ids"
                    )
                history = [] if place is None or self.histories is None else self.histories["history"][place].to_list()
            numbers = self._numbers(history)
            if not error and not len(numbers):
                error = f"history {row} names no item that the model knows: {list(history)[:3]}"
            known.append(numbers)
            users.append(user)
            errors.append(error)
        return known, users, errors

    def _strictly(self, histories: Iterable[Row]) -> list[Int32[np.ndarray, " H"]]:
        """Histories as item numbers. Raises UserError for one that names no known item."""
        known, _, errors = self._known(histories)
        if any(errors):
            raise UserError(next(error for error in errors if error))
        return known

    def _asked(self, what: str, ids: Ids | None, rows: int) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """(item numbers for all rows, those of each row): one of the two, whichever was asked for."""
        if isinstance(ids, str):
            raise UserError(f"{what} is a list of item ids, not a string")
        listed = [] if ids is None else list(ids)
        each = [isinstance(own, Iterable) and not isinstance(own, str | bytes) for own in listed]
        if not any(each):
            return self._numbers(listed), None
        if not all(each) or len(listed) != rows:
            raise UserError(f"{what} has to be item ids, or a list of them for each of {rows} rows")
        return np.zeros(0, np.int32), [np.unique(self._numbers(own)) for own in listed]

    def _batches(self, known: Sequence[Int32[np.ndarray, " H"]]):
        """(which histories, their user vectors) in batches of `_USERS`."""
        scorer, params = self.artifact.scorer, self.artifact.params
        length, begin = scorer.config.data.length, 0
        while begin < len(known):
            size = next((n for n in _USERS if n >= len(known) - begin), _USERS[-1])
            rows = range(begin, min(begin + size, len(known)))
            inputs = np.zeros((size, length), np.int32)
            for row, history in enumerate(known[r] for r in rows):
                latest = history[-length:]
                inputs[row, length - len(latest) :] = latest
            start, bins = pack((inputs > 0).sum(axis=1)[None], length)
            quarter = max(size // 4, 1)
            tokens = length * quarter * -(-int(bins[0]) // quarter)
            users = programs.users(scorer, params, self._on_device, self._met, inputs, start[0], tokens)
            yield rows, _Encoded(size, users)
            begin = rows.stop


class _Encoded(NamedTuple):
    batch: int
    users: dict[str, Any]


def _dial(name: str, value: float) -> float:
    """A finite number. Raises UserError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise UserError(f"{name} must be a finite number, not {value!r}")
    return float(value)


def _as_id(value: Any) -> str | None:
    """An id as the package writes it: 7 and 7.0 are "7"; None for what is none."""
    try:
        return as_id(value.item() if isinstance(value, np.generic) else value)
    except ValueError:
        return None


def _width(lists: Sequence[np.ndarray]) -> int:
    """A power of two above the longest: 0 pads every row, and there are few shapes, each compiled once."""
    return max(1 << max(map(len, lists), default=1).bit_length(), _MET)


def _padded(lists: Sequence[np.ndarray], rows: int, width: int) -> Int32[np.ndarray, "B H"]:
    found = np.zeros((rows, width), np.int32)
    for row, own in enumerate(lists):
        found[row, : len(own)] = own
    return found
