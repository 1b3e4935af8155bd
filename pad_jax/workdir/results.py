"""`results.json` and the ranks beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num
from safetensors.numpy import load, save

from pad_jax.atomic import write_atomically
from pad_jax.errors import UserError

FORMAT = 1


def read_results(workdir: Path) -> dict[str, Any]:
    """The results of a workdir; empty when there are none yet."""
    path = workdir / "results.json"
    if not path.exists():
        return {}
    try:
        results = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}); remove it and run the job `evaluate`") from error
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        raise UserError(f"{path} does not have format {FORMAT}; use a new --workdir")
    return results


def write_results(workdir: Path, results: Mapping[str, Any]) -> None:
    write_atomically(workdir / "results.json", json.dumps(results, indent=1).encode() + b"\n")


def read_ranks(workdir: Path) -> dict[str, Num[np.ndarray, " U"]]:
    """Ranks of every user's target, "<split>/<phase or baseline>", and its training count, "<split>/target_count"."""
    path = workdir / "ranks.safetensors"
    return load(path.read_bytes()) if path.exists() else {}


def write_ranks(workdir: Path, ranks: Mapping[str, Num[np.ndarray, " U"]]) -> None:
    arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in ranks.items()}
    write_atomically(workdir / "ranks.safetensors", save(arrays))
