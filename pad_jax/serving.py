"""A trained model outside its training: top-k lists, vectors of items and users, items that training never saw.

`export` puts what this needs into `<workdir>/model/`; `load` needs nothing else, neither the raw data nor PyTorch.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int, Int32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from pad_jax.blocks import map_blocks, rows_that_fit
from pad_jax.config import Config, GateConfig, ModelConfig
from pad_jax.data.batches import DeviceData
from pad_jax.data.files import first_line
from pad_jax.data.tables import BROKEN
from pad_jax.errors import UserError
from pad_jax.models.layout import lay_out, pack
from pad_jax.models.scorer import TABLES, Params, Scorer, vectors_of
from pad_jax.report.results import folder_atomically, write_atomically
from pad_jax.text.table import Transform

FORMAT = "pad_jax model 1"
_USERS = (1, 16, 256)  # histories of one call of the device
_MET = 32  # items of a history that there is always room for: few shapes, each compiled once


class Recommendations(NamedTuple):
    """k items for each of B users, best first; where there are fewer than k candidates, "" with score -inf."""

    items: np.ndarray  # [B, k] item ids
    titles: np.ndarray  # [B, k]
    scores: Float[np.ndarray, "B k"]
    experts: np.ndarray  # [B, k] the expert with the largest gate * score


@dataclass(frozen=True, eq=False, repr=False)
class Recommender:
    """The scorer of a trained workdir over its items, new ones included; see `load`."""

    scorer: Scorer
    params: Params  # encoders, towers and gate
    item_ids: Sequence[str]
    titles: Sequence[str]
    vectors: dict[str, Float[np.ndarray, "I D"]]  # of each expert, row 0 zeros
    gates: Float[np.ndarray, "I K"]
    transform: Transform
    manifest: dict[str, Any]  # of the text table; empty for methods of IDs alone
    config: dict[str, Any]  # as config.json has it

    def __repr__(self) -> str:
        method, dataset = self.config["method"], self.config["dataset"]
        return f"Recommender({method} of {dataset}: {len(self.item_ids):,} items, experts {self.scorer.experts})"

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int = 10, exclude_history: bool = True
    ) -> Recommendations:
        """Top-k lists for histories of item ids, oldest event first.

        An encoder sees the latest `data.length` known events; the whole history is left out of the lists, unless
        `exclude_history` is False. Raises UserError for a history without any known item, or for a k that is no number
        from 1 to the number of items.
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
            found = _top(encoded.users, self._gated, self._says, met, k)
            parts.append([np.asarray(x)[: len(rows)] for x in found])
        items, scores, experts = (np.concatenate(x) for x in zip(*parts, strict=True)) if parts else _NOTHING
        items = np.where(np.isfinite(scores), items, 0)
        ids, titles = self._names
        return Recommendations(ids[items], titles[items], scores, np.array(self.scorer.experts, object)[experts])

    def item_vectors(self) -> Float[np.ndarray, "N F"]:
        """One vector per item, in the order of `item_ids`: its inner product with a user's vector is the score."""
        return np.asarray(self._gated)[1:]

    def user_vectors(self, histories: Sequence[Sequence[str]]) -> Float[np.ndarray, "B F"]:
        """One vector per history. Raises UserError as `recommend`."""
        known = self._numbers(histories)
        parts = [np.asarray(encoded.users)[: len(rows)] for rows, encoded in self._batches(known)]
        return np.concatenate(parts) if parts else np.zeros((0, self._gated.shape[1]), np.float32)

    def save_vectors(self, path: str | Path) -> None:
        """`item_vectors` as tensor `items` of a safetensors file, whose header has the item ids as JSON."""
        about = {"item_ids": json.dumps(list(self.item_ids))}
        write_atomically(Path(path), save({"items": np.ascontiguousarray(self.item_vectors())}, about))

    def with_items(
        self, item_ids: Sequence[str], titles: Sequence[str], vectors: Float[np.ndarray, "R E"]
    ) -> "Recommender":
        """The same with items more that training never saw; `vectors` are their titles' as the text encoder gives them.

        The ID expert has nothing to say of them: its gate is 0 and the others are scaled to sum to one. The aligned
        expert has an ID row of zeros, and the gate is that of the coldest bucket. In a history, a new item has a vector
        of zeros for the ID expert. Raises UserError for an id that is there already, for vectors of another shape or
        with NaN, and for a model of IDs alone.
        """
        experts = self.scorer.experts
        if experts == ("id",):
            raise UserError("a model of item IDs alone cannot score items that training never saw")
        twice = [item for item, count in Counter(item_ids).items() if count > 1 or item in self._number]
        if twice:
            raise UserError(f"item {twice[0]!r} is in the model already, or twice among the new ones")
        width = len(self.transform.mean) or self._text_width
        if vectors.shape != (len(item_ids), width) or len(titles) != len(item_ids):
            raise UserError(
                f"the vectors of {len(item_ids)} new items must be [{len(item_ids)}, {width}], as those of "
                f"{self.manifest.get('encoder', 'the text table')} are, not {list(vectors.shape)}"
            )
        if not np.isfinite(vectors).all():
            raise UserError("the vectors of new items hold NaN or infinity")
        new, gates = self._new_items(self.transform(vectors))
        return replace(
            self,
            item_ids=[*self.item_ids, *item_ids],
            titles=[*self.titles, *titles],
            vectors={e: np.concatenate([self.vectors[e], new[e]]) for e in experts},
            gates=np.concatenate([self.gates, gates]),
        )

    @property
    def _text_width(self) -> int:
        """E of the text table, with `text.transform=none`."""
        return int(self.config["text_width"])

    def _new_items(self, text: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Vectors and gates of items without ID rows."""
        scorer, count = self.scorer, len(text)
        tables = {e: jnp.zeros((count, TABLES[e] * scorer.model.width)) for e in scorer.experts if e in TABLES}
        rows, numbers = np.zeros((0, 0), np.int32), np.zeros(0, np.int32)
        data = DeviceData(rows, rows, numbers, numbers, jnp.asarray(text))
        params = {**self.params, "tables": tables}
        items = scorer.item_vectors(params, jnp.arange(count), data)
        gates = np.array(scorer.gates(params, items, jnp.full(count, scorer.buckets)))
        if "id" in scorer.experts:
            gates[:, scorer.experts.index("id")] = 0
        return jax.tree.map(np.asarray, vectors_of(items)), gates / gates.sum(axis=1, keepdims=True)

    @cached_property
    def _gated(self) -> Float[Array, "I F"]:
        return self.scorer.weighted(self._on_device, jnp.asarray(self.gates))

    @cached_property
    def _says(self) -> Bool[Array, "I K"]:
        """Which experts say anything of an item."""
        return jnp.asarray(self.gates > 0)

    @cached_property
    def _on_device(self) -> dict[str, Float[Array, "I D"]]:
        return jax.tree.map(jnp.asarray, self.vectors)

    @cached_property
    def _names(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids and titles by item number; "" for 0."""
        return np.array(["", *self.item_ids], object), np.array(["", *self.titles], object)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {item: n for n, item in enumerate(self.item_ids, 1)}

    def _numbers(self, histories: Sequence[Sequence[str]]) -> list[Int32[np.ndarray, " H"]]:
        """Histories as item numbers, unknown items left out."""
        known = [
            np.array([n for n in (self._number.get(item) for item in history) if n is not None], np.int32)
            for history in histories
        ]
        empty = next((n for n, history in enumerate(known) if not len(history)), None)
        if empty is not None:
            raise UserError(f"history {empty} names no item that the model knows: {list(histories[empty])[:3]}")
        return known

    def _batches(self, known: Sequence[Int32[np.ndarray, " H"]]):
        """(which histories, their user vectors) in batches of `_USERS`."""
        length, begin = self.scorer.length, 0
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
            users = _users(self.scorer, self.params, self._on_device, inputs, start[0], tokens)
            yield rows, _Encoded(size, users)
            begin = rows.stop


class _Encoded(NamedTuple):
    batch: int
    users: Float[Array, "B F"]


_NOTHING = (np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int32))


@jax.jit(static_argnames=("scorer", "tokens"))
def _users(
    scorer: Scorer, params: Params, vectors: dict[str, Array], inputs, start, tokens: int
) -> Float[Array, "B F"]:
    """User vectors of left-padded rows of item numbers."""
    layout = lay_out(inputs > 0, start, tokens)
    ids = jnp.take(inputs.reshape(-1), layout.grid.cell, mode="fill", fill_value=0)
    return layout.last(scorer.users(params, {e: x[ids] for e, x in vectors.items()}, layout))


@jax.jit(static_argnames="k")
def _top(
    users: Float[Array, "B F"], items: Float[Array, "I F"], says: Bool[Array, "I K"], met: Int[Array, "B H"], k: int
):
    """Item numbers [B, k], scores, and the expert with the largest part of each, of those that say anything of it.

    `met` is no candidate; item 0 is in every row of it.
    """

    def some(part):
        users, met = part
        scores = users @ items.T
        scores = scores.at[jnp.arange(len(met))[:, None], met].set(-jnp.inf)
        best, found = jax.lax.top_k(scores, k)
        parts = (users[:, None] * items[found]).reshape(*found.shape, says.shape[1], -1).sum(axis=-1)
        return found, best, jnp.where(says[found], parts, -jnp.inf).argmax(axis=-1)

    rows = min(rows_that_fit(len(items)), rows_that_fit(k * users.shape[1]))
    return map_blocks(some, (users, met), rows)


def export(
    folder: Path,
    config: Config,
    scorer: Scorer,
    params: Params,
    data: DeviceData,
    items: tuple[Sequence[str], Sequence[str]],
    transform: Transform,
    text: tuple[int, dict[str, Any]],
    identity: Any,
) -> None:
    """Writes what `load` reads; `items` are ids and titles, `text` the width of the text table and its manifest.

    `identity` is what `is_of` compares.
    """
    vectors, gates = jax.jit(scorer.catalogue)(params, data)
    if jax.process_index() != 0:
        return
    kept = {name: params[name] for name in ("encoders", "towers", "gate") if name in params}
    tensors = flatten_dict({"params": kept, "vectors": vectors}, sep="/") | {"gates": gates}
    tensors |= {"transform/mean": transform.mean, "transform/matrix": transform.matrix}
    about = {
        "model": dataclasses.asdict(scorer.model),
        "gate": dataclasses.asdict(scorer.gate),
        **{name: getattr(scorer, name) for name in ("backbone", "experts", "buckets", "length")},
        "transform": transform.kind,
        "manifest": text[1],
        "config": dataclasses.asdict(config) | {"text_width": text[0]},
    }
    header = {"format": FORMAT, "about": json.dumps(about), "identity": json.dumps(identity, sort_keys=True)}
    arrays = {name: np.asarray(x, order="C") for name, x in tensors.items()}
    try:
        with folder_atomically(folder) as partial:
            save_file(arrays, partial / "model.safetensors", header)
            pl.DataFrame({"item": list(items[0]), "text": list(items[1])}).write_parquet(partial / "items.parquet")
    except (OSError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{folder} cannot be written ({first_line(error)}); use another --workdir") from error


def is_of(folder: Path, identity: Any) -> bool:
    """Whether `folder` is what `export` writes for this identity."""
    try:
        with safe_open(folder / "model.safetensors", "numpy") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError):
        return False
    return header.get("format") == FORMAT and header.get("identity") == json.dumps(identity, sort_keys=True)


def load(workdir: str | Path) -> Recommender:
    """The trained model of a workdir. Raises UserError where there is none, or where it is damaged."""
    folder = Path(workdir) / "model"
    path = folder / "model.safetensors"
    if not path.exists():
        raise UserError(f"{folder} is missing: train the last phase in {workdir}, or run its job `evaluate`")
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise UserError(f"{path} does not have the format {FORMAT!r}; run the job `evaluate`")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        about = json.loads(header["about"])
        items = pl.read_parquet(folder / "items.parquet")
        tree = unflatten_dict(tensors, sep="/")
        model, gate = (_tuples(about[name]) for name in ("model", "gate"))
        experts = tuple(about["experts"])
        scorer = Scorer(
            ModelConfig(**model), GateConfig(**gate), about["backbone"], experts, about["buckets"], about["length"]
        )
        return Recommender(
            scorer,
            jax.tree.map(jnp.asarray, tree["params"]),
            items["item"].to_list(),
            items["text"].to_list(),
            {e: tree["vectors"][e] for e in experts},
            tensors["gates"],
            Transform(about["transform"], tensors["transform/mean"], tensors["transform/matrix"]),
            about["manifest"],
            about["config"],
        )
    except (SafetensorError, KeyError, TypeError, *BROKEN) as error:
        raise UserError(f"{folder} is damaged ({first_line(error)}); remove it and run the job `evaluate`") from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
