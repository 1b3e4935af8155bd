"""The text table: one vector per item title, in a safetensors file that says where it came from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pad_jax.config import TextConfig
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.report.results import write_atomically

FORMAT = "pad_jax text table 1"


def write_table(path: Path, rows: Float[np.ndarray, "N E"], dataset: Dataset, manifest: Mapping[str, Any]) -> None:
    """Writes tensor `text` [N+1, E] (row 0 zeros) and its manifest, atomically. Refuses NaN and infinity."""
    _check_finite(path, rows)
    table = np.concatenate([np.zeros((1, rows.shape[1]), rows.dtype), rows])
    header = {
        "format": FORMAT,
        "dataset": dataset.name,
        "items": str(dataset.items),
        "item_list_sha256": dataset.item_list_sha256,
        "manifest": json.dumps(dict(manifest), sort_keys=True),
    }
    try:
        write_atomically(path, save({"text": table}, metadata=header))
    except OSError as error:
        raise UserError(f"text table {path} cannot be written ({error}); set --config.text.table") from error


def read_table(path: Path, dataset: Dataset) -> tuple[Float[np.ndarray, "I E"], dict[str, Any]]:
    """The table and its manifest. Raises UserError for a table of other items, with NaN or infinity, or no table."""
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT or "text" not in file.keys():  # noqa: SIM118 (no mapping)
                raise UserError(f"{path} is no text table of this project; make one with the job `encode`")
            table = file.get_tensor("text")
        items, name, sha256 = (header[field] for field in ("items", "dataset", "item_list_sha256"))
        manifest = dict(json.loads(header["manifest"]))
    except FileNotFoundError as error:
        raise UserError(f"text table {path} does not exist; make it with the job `encode`") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no safetensors file ({error}); make it with the job `encode`") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} has no complete header ({error}); make it with the job `encode`") from error
    if sha256 != dataset.item_list_sha256:
        raise UserError(
            f"{path} was made for the {items} items of {name}, not for these {dataset.items} "
            f"of {dataset.name}; remove it and run the job `encode`, or set --config.text.table"
        )
    if table.ndim != 2 or table.shape[0] != dataset.items + 1 or not table.shape[1] or table[0].any():
        raise UserError(f"{path}: tensor `text` must be [{dataset.items + 1}, d] with a zero row 0, not {table.shape}")
    _check_finite(path, table[1:])
    return table, manifest


def check_settings(path: Path, manifest: Mapping[str, Any], config: TextConfig) -> None:
    """Raises UserError for a table of other settings than `config`, where the manifest says so."""
    for name in ("encoder", "revision", "pooling", "normalize", "prompt", "max_length"):
        here = getattr(config, name)
        there = manifest.get(name, here)
        if there != here and (name != "revision" or here):
            raise UserError(
                f"{path} was made with config.text.{name}={there!r}, not {here!r}: run the job `encode` again, or set "
                "--config.text.table"
            )


def _check_finite(path: Path, rows: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(rows.astype(np.float32)).all(axis=1))
    if len(bad):
        raise UserError(
            f"{path}: the vectors of {len(bad)} items hold NaN or infinity, item {bad[0] + 1} first; encode again, "
            "in float32 if the encoder overflows"
        )


def transform(table: Float[np.ndarray, "I E"], kind: str, width: int) -> Float[np.ndarray, "I _"]:
    """What training reads of a text table; row 0 stays zero.

    none         the table as it is
    standardize  each dimension centred and scaled to unit variance over the items
    principal    the `width` leading principal directions of the centred rows, each row scaled to length 1; a table
                 of fewer dimensions is filled up with zeros

    Embedding spaces of language models are narrow cones: without centring, differences between items are small
    beside what all items share.
    """
    if kind == "none":
        return table
    rows = table[1:].astype(np.float64)
    rows -= rows.mean(axis=0)
    if kind == "standardize":
        deviation = rows.std(axis=0)
        rows /= np.where(deviation > 0, deviation, 1)
    else:
        values, vectors = np.linalg.eigh(rows.T @ rows)
        vectors = vectors[:, np.argsort(-values)][:, :width]
        vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])] < 0, -1, 1)
        rows = rows @ vectors
        rows = np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(length > 0, length, 1)
    return np.concatenate([np.zeros((1, rows.shape[1])), rows]).astype(np.float32)
