"""A trained model on disk: `<workdir>/model/` holds all that lists and vectors need, and nothing else is read."""

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open

from pad_jax import parallel, sealed
from pad_jax.batching.device import DeviceData
from pad_jax.data.files import first_line
from pad_jax.data.tables import BROKEN
from pad_jax.errors import UserError
from pad_jax.files import check_readable, folder_atomically
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import Params, Scorer
from pad_jax.registry import REGISTRIES
from pad_jax.sealed import DamagedError
from pad_jax.settings import Config, as_dict, restored
from pad_jax.text.served import Text
from pad_jax.workdir.results import write_results

FORMAT, EARLIER = 2, "pad_jax model 1"
HISTORIES = "histories.parquet"


@dataclass(frozen=True, eq=False, repr=False)
class Artifact:
    """A trained model: its scorer, and what the scorer makes of every item.

    `params` are those of encoders, towers and gate; `vectors` are of each expert, an array [I, ..] or a dictionary of
    them, row 0 zeros.
    """

    scorer: Scorer
    params: Params
    item_ids: Sequence[str]
    titles: Sequence[str]
    vectors: dict[str, Any]
    gates: Float[np.ndarray, "I K"]
    text: Text
    counts: Int[np.ndarray, " I"] | None = None  # training events of each item; None: not known of earlier versions
    tables: Mapping[str, Any] = field(default_factory=dict)  # of IDs, by expert: later training can start from them
    arrays: Mapping[str, Any] = field(default_factory=dict)  # by expert, those of `Expert.kept`
    verified: bool = True  # False: an earlier version wrote it, without a checksum
    identity: Mapping[str, Any] = field(default_factory=dict)  # what `save` was told
    trained: int | None = None  # items that training knew, which stand first; None: all
    retired: frozenset[str] = frozenset()  # items that no list has
    popularity: float = 0.0  # beta of what lists and ranks add to the score, beta * log(1 + training count)

    @property
    def run(self) -> str:
        """That made it, see `Workdir`; of earlier versions it is not known."""
        return str(self.identity.get("of", ""))

    @property
    def of_training(self) -> int:
        """How many items training knew, which stand first."""
        return len(self.item_ids) if self.trained is None else self.trained

    @property
    def known_counts(self) -> Int[np.ndarray, " I"]:
        """Training events of each item. Raises UserError for a model of an earlier version, which has none."""
        if self.counts is None:
            raise UserError(
                "the model was made by an earlier version and does not know the training counts of its items: run the "
                "job `evaluate`, which makes it anew"
            )
        return self.counts

    @classmethod
    def of(
        cls,
        scorer: Scorer,
        params: Params,
        data: DeviceData,
        item_ids: Sequence[str],
        titles: Sequence[str],
        text: Text,
        popularity: float = 0.0,
    ) -> "Artifact":
        """The model of trained parameters.

        Args:
            scorer: of the phase that is served.
            params: of that phase.
            data: of the run, on the device.
            item_ids: of all items, in their order.
            titles: likewise.
            text: of the run's text table.
            popularity: beta of the popularity dial.
        """
        vectors, gates = jax.tree.map(np.asarray, jax.jit(scorer.catalogue)(params, data))
        kept = _used(params, scorer.experts)
        tables = jax.tree.map(np.asarray, params.get("tables", {}))
        arrays = {e: {name: data.arrays[e][name] for name in EXPERTS[e].kept} for e in scorer.experts}
        arrays = jax.tree.map(np.asarray, arrays)
        known = np.asarray(data.counts), tables, arrays
        return cls(scorer, kept, item_ids, titles, vectors, gates, text, *known, popularity=popularity)

    def save(
        self,
        folder: Path,
        identity: Any,
        results: Mapping[str, Any] | None = None,
        histories: pl.DataFrame | None = None,
    ) -> None:
        """Writes what `load` reads. One process of several writes.

        Args:
            folder: in place of which it comes.
            identity: what `identity_of` finds.
            results: of the run that made it, for `results.json` beside it.
            histories: (user, history) for `histories.parquet`.
        """
        if not parallel.is_main():
            return
        about_text, of_text = self.text.saved()
        parts_of = {"params": self.params, "vectors": self.vectors, "tables": self.tables, "arrays": self.arrays}
        parts_of |= of_text
        tensors = flatten_dict(parts_of, sep="/") | {"gates": self.gates}
        if self.counts is not None:
            tensors["counts"] = self.counts
        scorer = self.scorer
        about = {
            "format": FORMAT,
            "identity": identity,
            "experts": scorer.experts,
            "gate": scorer.gate,
            "popularity": self.popularity,
            "parts": parts(scorer, self.text),
            **about_text,
            "config": as_dict(scorer.config),
        }
        if self.trained is not None or self.retired:
            about |= {"trained": self.trained, "retired": sorted(self.retired)}
        arrays = {name: np.asarray(x) for name, x in tensors.items()}
        with folder_atomically(folder) as partial:
            items = {"item": list(self.item_ids), "title": list(self.titles)}
            pl.DataFrame(items).write_parquet(partial / "items.parquet")
            about["items_sha256"] = hashlib.sha256((partial / "items.parquet").read_bytes()).hexdigest()
            if histories is not None:
                histories.write_parquet(partial / HISTORIES)
                about["histories_sha256"] = hashlib.sha256((partial / HISTORIES).read_bytes()).hexdigest()
            if results:
                write_results(partial, results, str(results.get("of", "")))
            (partial / "model.safetensors").write_bytes(sealed.tensors(arrays, json.loads(json.dumps(about))))

    @classmethod
    def load(cls, folder: Path) -> "Artifact":
        """The model in a folder.

        Raises UserError where there is none, where it is damaged, and where a part of it that is not the package's own
        has not been registered, naming the part and the file that had it.
        """
        path = folder / "model.safetensors"
        if not os.path.lexists(folder):
            raise UserError(f"{folder} is missing: train the last phase in {folder.parent}, or run its job `evaluate`")
        cure = "run the job `evaluate`, which makes it anew"
        try:
            tensors, about = sealed.read_tensors(path, FORMAT, cure)
            if about["format"] == EARLIER:
                about = json.loads(about["about"])
            elif about["format"] != FORMAT:
                raise DamagedError(path, f"does not have format {FORMAT}", cure)
            listed = sealed.read_bytes(folder / "items.parquet", cure)
            if about.get("items_sha256", seal := hashlib.sha256(listed).hexdigest()) != seal:
                raise DamagedError(folder / "items.parquet", "is damaged: its checksum is of other contents", cure)
            for kind, name, source in about.get("parts", ()):
                if name not in REGISTRIES[kind]:
                    raise UserError(f"{folder} needs the {kind} {name!r}: import what registers it, it was in {source}")
            rows = pl.scan_parquet(io.BytesIO(listed)).select(pl.len()).collect().item()
            if rows != len(tensors["gates"]) - 1:
                raise ValueError("its arrays and its items do not fit together")
            items = pl.read_parquet(io.BytesIO(listed))
            tree: dict[str, Any] = unflatten_dict(tensors, sep="/")
            experts = tuple(about["experts"])
            old = "parts" not in about  # written before version 0.2
            scorer = Scorer(_restored(about["config"]), experts, about["gate"]["kind"] if old else about["gate"])
            if old:
                about["text_width"] = about["config"]["text_width"]
            found = cls(
                scorer,
                jax.tree.map(jnp.asarray, tree["params"]),
                items["item"].to_list(),
                items["title" if "title" in items.columns else "text"].to_list(),
                {expert: tree["vectors"][expert] for expert in experts},
                tensors["gates"],
                Text.restored(about, tree),
                tensors.get("counts"),
                tree.get("tables", {}),
                tree.get("arrays", {}),
                "format" in about,
                dict(about.get("identity", {})),
                about.get("trained"),
                frozenset(about.get("retired", ())),
                float(about.get("popularity", 0.0)),
            )
            found._check()
            return found
        except UserError:
            raise
        except (Exception, *BROKEN) as error:  # whatever its scorer makes of what it says
            raise DamagedError(folder, f"is damaged ({first_line(error)})", cure) from error

    def _check(self) -> None:
        """Raises ValueError where an array does not have the shape that the scorer works with."""
        rows, experts = len(self.item_ids) + 1, self.scorer.experts
        if not 0 < (rows - 1 if self.trained is None else int(self.trained)) < rows:
            raise ValueError("it has fewer items than it was trained on")
        width = self.text.read_width
        fresh = jax.eval_shape(lambda: self.scorer.init(jax.random.key(0), 1, width))
        trees = (_used(params, experts) for params in (fresh, self.params))
        expected, found = (jax.tree.map(lambda x: (x.shape, jnp.dtype(x.dtype)), tree) for tree in trees)
        if expected != found:
            raise ValueError("its parameters are not those of its settings")
        own = {name: EXPERTS[name] for name in experts}
        for name, expert in own.items():
            if expert.kept:
                inputs = self.scorer.config, self.tables.get(name), self.arrays[name]
                more: dict[str, Any] = {"titles": [""]} if expert.reads_titles else {}
                made = partial(expert.new_rows, *inputs, **more)
                new = jax.eval_shape(made, np.zeros((1, width), "f4"))
                if (new.shape, new.dtype) != ((1, *expert.row(self.scorer.config)), jnp.float32):
                    raise ValueError("what it has for new items is not that of its settings")
        vectors = {name: (rows, e.width(self.scorer.config)) for name, e in own.items() if not e.own_score}
        arrays: list[tuple[Any, tuple[int, ...], str]] = []
        arrays += [(self.vectors[name], shape, "f") for name, shape in vectors.items()]
        arrays.append((self.gates, (rows, len(experts)), "f"))
        arrays += [] if self.counts is None else [(self.counts, (rows,), "i")]
        fine = all(x.shape == shape and x.dtype.kind == kind for x, shape, kind in arrays)
        fine = fine and math.isfinite(self.popularity) and (self.counts is not None or not self.popularity)
        if not fine or len(self.titles) != rows - 1 or not all(isinstance(i, str) for i in self.item_ids):
            raise ValueError("its arrays and its items do not fit together")


def _restored(values: Mapping[str, Any]) -> Config:
    try:
        return restored(values)
    except UserError as error:  # of settings, and the user has set none
        raise ValueError(str(error)) from error


def _used(params: Params, experts: Sequence[str]) -> dict[str, Any]:
    """What of a phase's parameters these experts score with, beside vectors and gates of the items."""
    parts = {part: params.get(part, {}) for part in ("encoders", "towers")}
    used = {part: {name: own[name] for name in experts if name in own} for part, own in parts.items()}
    used |= {"gate": params["gate"]} if len(experts) > 1 else {}
    return {part: own for part, own in used.items() if own}


def histories_in(folder: Path) -> pl.DataFrame | None:
    """The histories that `Artifact.save` was given, as (user, history); None where it was given none.

    Raises DamagedError for other ones.
    """
    path, cure = folder / HISTORIES, "save the model again"
    with safe_open(folder / "model.safetensors", "numpy") as file:
        seal = json.loads((file.metadata() or {}).get("about", "{}")).get("histories_sha256")
    if seal is None:
        return None
    content = sealed.read_bytes(path, cure)
    if hashlib.sha256(content).hexdigest() != seal:
        raise DamagedError(path, "is damaged: its checksum is of other contents", cure)
    return pl.read_parquet(io.BytesIO(content))


def identity_of(folder: Path) -> dict[str, Any] | None:
    """What `Artifact.save` was told of the model in a folder; None where there is none that can be read."""
    try:
        check_readable(folder / "model.safetensors")
        with safe_open(folder / "model.safetensors", "numpy") as file:
            header = file.metadata() or {}
        if header.get("format") == EARLIER:
            return json.loads(header["identity"])
        return json.loads(header["about"])["identity"]
    except (UserError, OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return None


def parts(scorer: Scorer, text: Text) -> list[tuple[str, str, str]]:
    """(kind, name, file) of every registered part that a model is served with."""
    used = [("expert", expert) for expert in scorer.experts]
    used += [("backbone", scorer.config.backbone), ("gate", scorer.gate)]
    used += [("transform", table.transform.kind) for table in (text, *text.more)]
    return [(kind, name, REGISTRIES[kind].entry(name).source) for kind, name in used]
