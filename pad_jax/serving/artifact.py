"""A trained model on disk: `<workdir>/model/` holds all that lists and vectors need, and nothing else is read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pad_jax import parallel
from pad_jax.atomic import folder_atomically
from pad_jax.batching.device import DeviceData
from pad_jax.data.files import first_line
from pad_jax.data.tables import BROKEN
from pad_jax.errors import UserError
from pad_jax.models.scorer import Params, Scorer
from pad_jax.registry import REGISTRIES
from pad_jax.settings import as_dict, restored
from pad_jax.text.transform import Transform

FORMAT = "pad_jax model 1"


@dataclass(frozen=True)
class Text:
    """What a model knows of its text table: the width, how it came about, and what training made of its vectors."""

    width: int = 0  # 0: the model reads no text
    manifest: Mapping[str, Any] = field(default_factory=dict)
    transform: Transform = field(default_factory=lambda: Transform("none"))


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

    @classmethod
    def of(
        cls,
        scorer: Scorer,
        params: Params,
        data: DeviceData,
        item_ids: Sequence[str],
        titles: Sequence[str],
        text: Text,
    ) -> "Artifact":
        """The model of trained parameters.

        Args:
            scorer: of the phase that is served.
            params: of that phase.
            data: of the run, on the device.
            item_ids: of all items, in their order.
            titles: likewise.
            text: of the run's text table.
        """
        vectors, gates = jax.tree.map(np.asarray, jax.jit(scorer.catalogue)(params, data))
        kept = {name: params[name] for name in ("encoders", "towers", "gate") if name in params}
        return cls(scorer, kept, item_ids, titles, vectors, gates, text, np.asarray(data.counts))

    def save(self, folder: Path, identity: Any) -> None:
        """Writes what `load` reads; `identity` is what `identity_of` finds. One process of several writes."""
        if not parallel.is_main():
            return
        transform = self.text.transform
        tensors = flatten_dict({"params": self.params, "vectors": self.vectors}, sep="/") | {"gates": self.gates}
        tensors |= {f"transform/{name}": x for name, x in transform.arrays.items()}
        if self.counts is not None:
            tensors["counts"] = self.counts
        scorer = self.scorer
        about = {
            "experts": scorer.experts,
            "gate": scorer.gate,
            "parts": parts(scorer, transform),
            "transform": transform.kind,
            "manifest": dict(self.text.manifest),
            "text_width": self.text.width,
            "config": as_dict(scorer.config),
        }
        header = {"format": FORMAT, "about": json.dumps(about), "identity": json.dumps(identity, sort_keys=True)}
        arrays = {name: np.asarray(x, order="C") for name, x in tensors.items()}
        try:
            with folder_atomically(folder) as partial:
                save_file(arrays, partial / "model.safetensors", header)
                items = {"item": list(self.item_ids), "title": list(self.titles)}
                pl.DataFrame(items).write_parquet(partial / "items.parquet")
        except (OSError, SafetensorError, pl.exceptions.PolarsError) as error:
            raise UserError(f"{folder} cannot be written ({first_line(error)}); use another --workdir") from error

    @classmethod
    def load(cls, folder: Path) -> "Artifact":
        """The model in a folder.

        Raises UserError where there is none, where it is damaged, and where a part of it that is not the package's own
        has not been registered, naming the part and the file that had it.
        """
        path = folder / "model.safetensors"
        if not path.exists():
            raise UserError(f"{folder} is missing: train the last phase in {folder.parent}, or run its job `evaluate`")
        try:
            with safe_open(path, "numpy") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise UserError(f"{path} does not have the format {FORMAT!r}; run the job `evaluate`")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            about = json.loads(header["about"])
            for kind, name, source in about.get("parts", ()):
                if name not in REGISTRIES[kind]:
                    raise UserError(f"{folder} needs the {kind} {name!r}: import what registers it, it was in {source}")
            items = pl.read_parquet(folder / "items.parquet")
            tree = unflatten_dict(tensors, sep="/")
            experts = tuple(about["experts"])
            old = "parts" not in about  # written before version 0.2
            scorer = Scorer(restored(about["config"]), experts, about["gate"]["kind"] if old else about["gate"])
            width = about["config"]["text_width"] if old else about["text_width"]
            arrays = tree.get("transform", {}) if about["transform"] != "none" else {}
            return cls(
                scorer,
                jax.tree.map(jnp.asarray, tree["params"]),
                items["item"].to_list(),
                items["title" if "title" in items.columns else "text"].to_list(),
                {expert: tree["vectors"][expert] for expert in experts},
                tensors["gates"],
                Text(width, about["manifest"], Transform(about["transform"], arrays)),
                tensors.get("counts"),
            )
        except (SafetensorError, KeyError, TypeError, *BROKEN) as error:
            why = first_line(error)
            raise UserError(f"{folder} is damaged ({why}); remove it and run the job `evaluate`") from error


def identity_of(folder: Path) -> dict[str, Any] | None:
    """What `Artifact.save` was told of the model in a folder; None where there is none that can be read."""
    try:
        with safe_open(folder / "model.safetensors", "numpy") as file:
            header = file.metadata() or {}
        return json.loads(header["identity"]) if header.get("format") == FORMAT else None
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def titles_in(folder: Path) -> list[str] | None:
    """The titles of the model in a folder; None where they cannot be read."""
    try:
        items = pl.read_parquet(folder / "items.parquet")
        return items["title" if "title" in items.columns else "text"].to_list()
    except BROKEN:
        return None


def parts(scorer: Scorer, transform: Transform) -> list[tuple[str, str, str]]:
    """(kind, name, file) of every registered part that a model is served with."""
    used = [("expert", expert) for expert in scorer.experts]
    used += [("backbone", scorer.config.backbone), ("gate", scorer.gate), ("transform", transform.kind)]
    return [(kind, name, REGISTRIES[kind].entry(name).source) for kind, name in used]
