"""A trained model that scores: lists for histories, vectors, items that training never saw."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32
from safetensors.numpy import save

from pad_jax.batching.layout import lay_out, pack
from pad_jax.blocks import map_blocks, rows_that_fit
from pad_jax.errors import UserError
from pad_jax.evaluation.ranking import ranks_of
from pad_jax.files import write_atomically
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import Items, Params, Scorer, vectors_of
from pad_jax.models.towers import ItemVectors
from pad_jax.serving.artifact import Artifact

_USERS = (1, 16, 256)  # histories of one call of the device
FALLBACK = "fallback"  # the expert of a list for a user without history
_MET = 32  # items of a history that there is always room for: few shapes, each compiled once


class Recommendations(NamedTuple):
    """k items for each of B users, best first; where there are fewer than k candidates, "" with score -inf."""

    items: np.ndarray  # [B, k] item ids
    titles: np.ndarray  # [B, k]
    scores: Float[np.ndarray, "B k"]
    experts: np.ndarray  # [B, k] the expert with the largest gate * score


class Recommender:
    """The scorer of a trained model over its items, new ones included."""

    def __init__(self, artifact: Artifact):
        self.artifact = artifact
        self.item_ids, self.titles = artifact.item_ids, artifact.titles

    def __repr__(self) -> str:
        config, experts = self.artifact.scorer.config, self.artifact.scorer.experts
        return f"Recommender({config.method} of {config.dataset}: {len(self.item_ids):,} items, experts {experts})"

    @property
    def knows_new_items(self) -> bool:
        """Whether it can score items that training never saw."""
        return any(EXPERTS[expert].knows_new for expert in self.artifact.scorer.experts)

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int = 10, exclude_history: bool = True
    ) -> Recommendations:
        """Top-k lists for histories of item ids, oldest event first.

        Ids may be numbers. An encoder sees the latest `data.length` known events; the whole history is left out of the
        lists, unless `exclude_history` is False. Raises UserError for a history without any known item, or for a k
        outside 1 to the number of items.
        """
        if not 1 <= k <= len(self.item_ids):
            raise UserError(f"k must be from 1 to the number of items, {len(self.item_ids):,}, not {k}")
        known = self._numbers(histories)
        longest = max((len(np.unique(h)) for h in known), default=1) if exclude_history else 1
        width = max(1 << longest.bit_length(), _MET)  # a power of two above it: item 0 pads every row
        parts = []
        for rows, encoded in self._batches(known):
            met = np.zeros((encoded.batch, width), np.int32)
            for row, history in enumerate(known[r] for r in rows):
                distinct = np.unique(history) if exclude_history else history[:0]
                met[row, : len(distinct)] = distinct
            found = _top(self.artifact.scorer, encoded.users, self._items, self._says, met, k)
            parts.append([np.asarray(x)[: len(rows)] for x in found])
        items, scores, experts = (np.concatenate(x) for x in zip(*parts, strict=True)) if parts else _NOTHING
        items = np.where(np.isfinite(scores), items, 0)
        ids, titles = self._names
        names = np.array(self.artifact.scorer.experts, object)
        return Recommendations(ids[items], titles[items], scores, names[experts])

    def popular(self, k: int = 10) -> Recommendations:
        """One list of what training met most, for whoever has no history: its expert is `fallback`, a score the count.

        Raises UserError for a model of an earlier version, which has no counts.
        """
        if self.artifact.counts is None:
            raise UserError("the model was made by an earlier version and does not know what is popular: train anew")
        counts = self.artifact.counts[1:]
        items = 1 + np.argsort(-counts, kind="stable")[None, :k]
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
        known, wanted = self._numbers(histories), self._numbers([[target] for target in targets])
        width = max(max((len(np.unique(h)) for h in known), default=1), 1)
        ranks = np.zeros(len(known), np.float32)
        for rows, encoded in self._batches(known):
            met, target = np.zeros((encoded.batch, width), np.int32), np.ones(encoded.batch, np.int32)
            for row, history in enumerate(known[r] for r in rows):
                distinct = np.unique(history)
                met[row, : len(distinct)] = distinct
                target[row] = wanted[rows[row]][0]
            found = _ranks(self.artifact.scorer, encoded.users, self._items, target, met, len(self.item_ids) + 1)
            ranks[rows.start : rows.stop] = np.asarray(found)[: len(rows)]
        return ranks

    def item_vectors(self) -> Float[np.ndarray, "N F"]:
        """One vector per item, in the order of `item_ids`: its inner product with a user's vector is the score.

        Raises UserError for a model with an expert whose score is no inner product.
        """
        self._check_vectors()
        return np.asarray(self._items.vectors)[1:]

    def user_vectors(self, histories: Sequence[Sequence[str]]) -> Float[np.ndarray, "B F"]:
        """One vector per history. Raises UserError as `recommend` and `item_vectors`."""
        self._check_vectors()
        known = self._numbers(histories)
        joined = self.artifact.scorer.joined
        parts = [np.asarray(joined(encoded.users))[: len(rows)] for rows, encoded in self._batches(known)]
        return np.concatenate(parts) if parts else np.zeros((0, self._items.vectors.shape[1]), np.float32)

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
    ) -> "Recommender":
        """The same with items more that training never saw.

        `vectors` are their titles' as the text encoder gives them, those of several tables side by side; where all
        tables are of words, none. `texts` are what such a table reads, where that is not the titles.

        An expert that cannot know them, as that of IDs, has nothing to say: its gate is 0 and the others are scaled to
        sum to one. The aligned expert has an ID row of zeros, that of codes the codes of the title, and the gate is
        that of the coldest bucket. In a history, a new item has a vector of zeros for an expert that does not know it.
        Raises UserError for an id that is there already, for vectors of another shape or with NaN, and for a model that
        knows no text.
        """
        artifact, item_ids = self.artifact, [str(item) for item in item_ids]
        if not self.knows_new_items:
            raise UserError("a model of item IDs alone cannot score items that training never saw")
        twice = [item for item, count in Counter(item_ids).items() if count > 1 or item in self._number]
        if twice:
            raise UserError(f"item {twice[0]!r} is in the model already, or twice among the new ones")
        read = titles if texts is None else texts
        if not len(titles) == len(read) == len(item_ids):
            raise UserError(f"each of {len(item_ids)} new items needs a title: there are {len(titles)}")
        new, gates = self._new_items(artifact.text.rows(read, vectors), read)
        return Recommender(
            replace(
                artifact,
                item_ids=[*self.item_ids, *item_ids],
                titles=[*self.titles, *titles],
                vectors={
                    e: jax.tree.map(lambda a, b: np.concatenate([a, b]), artifact.vectors[e], new[e]) for e in new
                },
                gates=np.concatenate([artifact.gates, gates]),
                counts=None if artifact.counts is None else np.pad(artifact.counts, (0, len(item_ids))),
            )
        )

    def _new_items(self, text: np.ndarray, titles: Sequence[str]) -> tuple[dict[str, Any], np.ndarray]:
        """Vectors and gates of items without ID rows."""
        artifact, count = self.artifact, len(text)
        scorer = artifact.scorer
        config = scorer.config
        knowing = [expert for expert in scorer.experts if EXPERTS[expert].knows_new]
        rows32 = jnp.asarray(text).astype(jnp.float32)
        rows = {}
        for name in knowing:
            inputs = config, artifact.tables.get(name), artifact.arrays.get(name, {}), rows32
            more: dict[str, Any] = {"titles": titles} if EXPERTS[name].reads_titles else {}
            rows[name] = EXPERTS[name].new_rows(*inputs, **more)
        items = scorer.vectors_from(artifact.params, rows, rows32, jnp.arange(count))
        vectors = jax.tree.map(np.asarray, vectors_of(items))
        for expert in scorer.experts:
            if expert not in vectors:
                nothing = jax.tree.map(lambda x: np.zeros((count, *x.shape[1:]), x.dtype), artifact.vectors[expert])
                vectors[expert], items[expert] = nothing, ItemVectors(nothing)
        gates = np.array(scorer.gates(artifact.params, items, jnp.full(count, config.data.buckets)))
        for number, expert in enumerate(scorer.experts):
            if expert not in knowing:
                gates[:, number] = 0
        return vectors, gates / gates.sum(axis=1, keepdims=True)

    def _check_vectors(self) -> None:
        own = [expert for expert in self.artifact.scorer.experts if EXPERTS[expert].own_score]
        if own:
            raise UserError(
                f"the score of the expert {own[0]!r} is not an inner product: there are lists, but no vectors"
            )

    @cached_property
    def _items(self) -> Items:
        return self.artifact.scorer.weighted(self._on_device, jnp.asarray(self.artifact.gates))

    @cached_property
    def _says(self) -> Bool[Array, "I K"]:
        """Which experts say anything of an item."""
        return jnp.asarray(self.artifact.gates > 0)

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

    def _numbers(self, histories: Sequence[Sequence[str]]) -> list[Int32[np.ndarray, " H"]]:
        """Histories as item numbers, unknown items left out."""
        if any(isinstance(history, str) for history in histories):
            raise UserError("a history is a list of item ids, not a string: write recommend([[..], [..]])")
        known = [
            np.array([n for n in (self._number.get(str(item)) for item in history) if n is not None], np.int32)
            for history in histories
        ]
        empty = next((n for n, history in enumerate(known) if not len(history)), None)
        if empty is not None:
            raise UserError(f"history {empty} names no item that the model knows: {list(histories[empty])[:3]}")
        return known

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
            users = _users(scorer, params, self._on_device, inputs, start[0], tokens)
            yield rows, _Encoded(size, users)
            begin = rows.stop


class _Encoded(NamedTuple):
    batch: int
    users: dict[str, Any]


_NOTHING = (np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int32))


@jax.jit(static_argnames=("scorer", "tokens"))
def _users(scorer: Scorer, params: Params, vectors: dict[str, Any], inputs, start, tokens: int) -> dict[str, Any]:
    """The user side of the score of left-padded rows of item numbers."""
    layout = lay_out(inputs > 0, start, tokens)
    ids = jnp.take(inputs.reshape(-1), layout.grid.cell, mode="fill", fill_value=0)
    return jax.tree.map(layout.last, scorer.users(params, jax.tree.map(lambda x: x[ids], vectors), layout))


@partial(jax.jit, static_argnames=("scorer", "count"))
def _ranks(scorer: Scorer, users: dict[str, Any], items: Items, target, met, count: int):
    """`ranks_of` of a batch of users."""
    return ranks_of(users, items, target, met, rows_that_fit(count), partial(scorer.scores, rows=count))


@partial(jax.jit, static_argnames=("scorer", "k"))
def _top(scorer: Scorer, users: dict[str, Any], items: Items, says: Bool[Array, "I K"], met: Int[Array, "B H"], k: int):
    """Item numbers [B, k], scores, and the expert with the largest part of each, of those that say anything of it.

    `met` is no candidate; item 0 is in every row of it.
    """
    count = len(says)

    def parts_of(users, found):
        """Each expert's part of the scores of `found` [n, k]: [n, k, K]."""
        parts, begin = [], 0
        for name in scorer.experts:
            if name in items.others:
                (other,) = scorer.others({name: users[name]}, Items(items.vectors, {name: items.others[name]}), count)
                parts.append(jnp.take_along_axis(other.block(users[name]), found, axis=1))
            else:
                width = users[name].shape[1]
                parts.append((users[name][:, None] * items.vectors[found, begin : begin + width]).sum(axis=-1))
                begin += width
        return jnp.stack(parts, axis=-1)

    def some(part):
        users, met = part
        scores = scorer.scores(users, items, count)
        scores = scores.at[jnp.arange(len(met))[:, None], met].set(-jnp.inf)
        best, found = jax.lax.top_k(scores, k)
        return found, best, jnp.where(says[found], parts_of(users, found), -jnp.inf).argmax(axis=-1)

    width = max(items.vectors.shape[1], 1)
    rows = min(rows_that_fit(count), rows_that_fit(k * width))
    return map_blocks(some, (users, met), rows)
