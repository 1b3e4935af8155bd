"""`results.json` and the ranks beside it, sealed, and whose they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Num

from pad_jax import sealed
from pad_jax.files import write_atomically
from pad_jax.sealed import FORMAT, DamagedError

CURE = "run the job `evaluate`, which writes it anew"
_FIELDS = ("dataset", "method", "backbone", "loss", "recipe", "seed", "text_encoder", "phases", "baselines")


def read_results(workdir: Path, of: str = "") -> dict[str, Any]:
    """The results of a workdir; empty when there are none yet.

    `of` is whose they are to be, see `Workdir`. Raises DamagedError for other ones, and for what is none.
    """
    path = workdir / "results.json"
    if not path.exists() and not path.is_symlink():
        return {}
    results = sealed.read_json(path, FORMAT, CURE)
    lacking = [name for name in _FIELDS if name not in results]
    if lacking or not isinstance(results["phases"], dict):
        raise DamagedError(path, f"lacks {lacking[0] if lacking else 'phases'}", CURE)
    if of and results.get("of", of) != of:
        raise DamagedError(path, "is of another run", CURE)
    return results


SUMMARY = "phase.json"


def write_summary(folder: Path, summary: Mapping[str, Any], of: str) -> None:
    """What training says of a finished phase, beside its checkpoints: `evaluate` makes results from it."""
    sealed.write_json(folder / SUMMARY, dict(summary) | {"format": FORMAT, "of": of})


def read_summary(folder: Path, of: str) -> dict[str, Any] | None:
    """None where there is none. Raises DamagedError for that of another run."""
    path, cure = folder / SUMMARY, f"remove {folder} to train its phase again"
    if not path.exists():
        return None
    summary = sealed.read_json(path, FORMAT, cure)
    if summary.pop("of", of) != of:
        raise DamagedError(path, "is of another run", cure)
    return {n: v for n, v in summary.items() if n != "format"}


def as_frame(results: Mapping[str, Any]) -> pl.DataFrame:
    """(scorer, split, group, users, HR@10, ..) of every phase and baseline; group `all`, and those by training count of
    the target and by the length of the history. A group without users has no metrics."""
    rows = []
    for scorer, entry in {**results["phases"], **results["baselines"]}.items():
        for split in ("valid", "test", "events"):
            whole = (entry or {}).get(split)
            if whole:
                groups = {"all": whole, **whole.get("by_frequency", {}), **whole.get("by_history", {})}
                for group, found in groups.items():
                    numbers = {n: v for n, v in found.items() if v is None or isinstance(v, int | float)}
                    rows.append({"scorer": scorer, "split": split, "group": group, **numbers})
    frame = pl.DataFrame(rows, infer_schema_length=None)
    first = ["scorer", "split", "group", "users"]
    return frame.select(*first, *(name for name in frame.columns if name not in first))


def write_results(workdir: Path, results: Mapping[str, Any], of: str) -> None:
    sealed.write_json(workdir / "results.json", dict(results) | {"format": FORMAT, "of": of})


def read_ranks(workdir: Path, of: str = "") -> dict[str, Num[np.ndarray, " U"]]:
    """By "<split>/..": ranks of every user's target of each phase and baseline, its training count `target_count`, and
    how many items the user has met before, `items_met`.

    None where there is no such file. `of` is whose they are to be, see `Workdir`. Raises DamagedError for other ones.
    """
    path = workdir / "ranks.safetensors"
    if not path.exists() and not path.is_symlink():
        return {}
    ranks, about = sealed.read_tensors(path, FORMAT, CURE)
    if of and about.get("of", of) != of:
        raise DamagedError(path, "is of another run", CURE)
    return ranks


def write_ranks(workdir: Path, ranks: Mapping[str, Num[np.ndarray, " U"]], of: str) -> None:
    arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in ranks.items()}
    write_atomically(workdir / "ranks.safetensors", sealed.tensors(arrays, {"format": FORMAT, "of": of}))
