"""Small data that everything is tested on, and the configurations of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from pad_jax.batching.layout import Layout, lay_out, pack
from pad_jax.config import config_dict, resolve
from pad_jax.data.dataset import Dataset, from_sequences
from pad_jax.settings import Config, build, defaults, put
from pad_jax.text.table import TableWriter

ROOT = Path(__file__).parents[2]

#: A model small enough for tests.
SMALL = {
    "model.width": 16,
    "model.text_layers": 1,
    "sasrec.blocks": 1,
    "data.length": 8,
    "mmd.group": 4,
    "train.batch": 16,
    "train.steps_per_dispatch": 3,
    "train.sampled": 12,
    "eval.batch": 8,
}


def set_fields(config, fields: Mapping[str, Any]) -> None:
    """Sets dotted names of a ConfigDict."""
    for name, value in fields.items():
        *parents, last = name.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value


def small_config(recipe: str = "paper", **overrides) -> Config:
    """A small Config; overrides are dotted names, with __ for the dot where Python wants a name."""
    fields = SMALL | {"recipe": recipe} | {name.replace("__", "."): value for name, value in overrides.items()}
    config = config_dict("demo", "all")
    set_fields(config, fields)
    return resolve(config, fields)


def default_config(dataset: str, fields: Mapping[str, Any] | None = None) -> Config:
    """Every field at its default, in no recipe, but for some dotted names."""
    values = defaults(dataset)
    for name, value in (fields or {}).items():
        put(values, name, value)
    return build(values)


def tiny_dataset(users: int = 37) -> Dataset:
    """30 items, and a number of users that no batch and no device count divides."""
    random = np.random.default_rng(0)
    sequences = [random.integers(1, 31, size=random.integers(5, 13)) for _ in range(users)]
    names = [f"u{u}" for u in range(users)]
    return from_sequences("tiny", [f"i{i}" for i in range(30)], [f"title {i}" for i in range(30)], names, sequences)


def tiny_text() -> np.ndarray:
    """A text table [31, 12] with a zero row 0."""
    table = np.random.default_rng(1).normal(size=(31, 12)).astype(np.float32)
    table[0] = 0
    return table


def write_table(path: Path, rows: np.ndarray, dataset: Dataset, manifest: dict) -> None:
    """The text table of `rows` [N, E], an item each."""
    with TableWriter(path, dataset, rows.shape[1], rows.dtype, manifest, {}) as writer:
        for item, row in enumerate(rows, 1):
            writer.put(item, row)
        writer.finish()


def laid_out(mask, first_row: int = 0, spare: int = 0) -> Layout:
    """The layout of a left-padded grid, packed, with `spare` bins more than it takes."""
    start, bins = pack(np.asarray(mask).sum(axis=1)[None], mask.shape[1])
    tokens = (int(bins[0]) + spare) * mask.shape[1]
    return lay_out(jnp.asarray(mask), jnp.asarray(start[0]), tokens, first_row)


def sequences(data: Dataset) -> dict[str, list[str]]:
    """Each user's item ids."""
    parts = np.split(data.events, data.starts[1:-1])
    return {u: [data.item_ids[i - 1] for i in part] for u, part in zip(data.user_ids, parts, strict=True)}


def histories(dataset: Dataset, drop: int = 0) -> list[list[str]]:
    """Each user's item ids without the last `drop`."""
    return [items[: len(items) - drop] for items in sequences(dataset).values()]
