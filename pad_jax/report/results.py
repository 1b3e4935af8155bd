"""`results.json` and the ranks beside it."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num
from safetensors.numpy import load, save

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
        raise UserError(f"{path} is no JSON ({error}); remove it and run the job `evaluate`") from error
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


def write_atomically(path: Path, content: bytes) -> None:
    """The whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_atomically(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes `folder` in place of what was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp lets nobody else in
        before = partial.with_name(partial.name + ".before")
        if folder.exists():
            os.replace(folder, before)
        os.replace(partial, folder)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
