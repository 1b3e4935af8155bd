"""Files that say what they are and carry a checksum, which is checked whenever they are read.

A sealed JSON file has the fields `format` and `sha256`, the latter of everything else in it. A sealed tensor file is
safetensors with one field of metadata, `about`: JSON with a `sha256` of itself and of all tensors. Equal contents are
equal bytes in both.

What earlier versions wrote has no checksum: it is used, and one line says that nothing vouches for it. A file of the
format of today without one is refused.
"""

import functools
import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pad_jax.console import say
from pad_jax.errors import UserError
from pad_jax.files import write_atomically

FORMAT = 2  # of the JSON files and the ranks of a workdir
LARGEST_JSON = 1 << 30  # bytes


class DamagedError(UserError):
    """A file that is not what was written: its message names the file, what is wrong, and what remakes it."""

    def __init__(self, path: Path, wrong: str, cure: str):
        super().__init__(f"{path} {wrong}; {cure}")
        self.path, self.wrong, self.cure = path, wrong, cure


def digest(value: Any) -> str:
    """Of anything that JSON holds."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of_arrays(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> str:
    """Of names, kinds, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def read_bytes(path: Path, cure: str, most: int | None = None) -> bytes:
    """Raises DamagedError for what is no regular file, cannot be read, or has more than `most` bytes."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError(path, "is not a file", cure)
        if most is not None and status.st_size > most:
            raise DamagedError(path, f"has {status.st_size:,} bytes, more than {most:,}", cure)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DamagedError(path, f"cannot be read ({getattr(error, 'strerror', error)})", cure) from error
    except MemoryError as error:
        raise DamagedError(path, f"does not fit into memory, it has {status.st_size:,} bytes", cure) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The content, which has a `format`, and its checksum."""
    whole = dict(content) | {"sha256": digest({n: v for n, v in content.items() if n != "sha256"})}
    write_atomically(path, json.dumps(whole, indent=1).encode() + b"\n")


def read_json(path: Path, today: int, cure: str) -> dict[str, Any]:
    """What `write_json` was given, or an earlier version wrote without a checksum.

    Args:
        path: of the file.
        today: the format of files that are written now.
        cure: what remakes the file.

    Raises DamagedError for anything else.
    """
    try:
        found = json.loads(read_bytes(path, cure, LARGEST_JSON))
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"is not JSON ({str(error)[:80]})", cure) from error
    if not isinstance(found, dict):
        raise DamagedError(path, "holds no JSON object", cure)
    seal, version = found.pop("sha256", None), found.get("format", 1)
    if version not in range(1, today + 1):
        raise DamagedError(path, f"has format {str(version)[:20]!r}, and this version knows {today}", cure)
    if seal is None and version < today:
        unverified(path)
    elif seal != digest(found):
        raise DamagedError(path, "is damaged: its checksum is of other contents", cure)
    return found


def tensors(arrays: Mapping[str, Shaped[np.ndarray, "..."]], about: Mapping[str, Any]) -> bytes:
    """A sealed tensor file; `about` has a `format`."""
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    whole = dict(about) | {"sha256": digest([dict(about), digest_of_arrays(ordered)])}
    return save(ordered, {"about": json.dumps(whole, sort_keys=True)})


def read_tensors(path: Path, today: int, cure: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, about) as `tensors` was given them, or as an earlier version wrote them: its metadata then.

    Args as of `read_json`. Raises DamagedError for anything else.
    """
    content = read_bytes(path, cure)
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__", {})
        arrays = load(content)
        if set(metadata) == {"about"}:
            about = json.loads(metadata["about"])
        elif not metadata or "format" in metadata:
            about = {"format": 1} | metadata
        else:
            raise ValueError("its metadata are not of this project")
    except (SafetensorError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(path, f"is not a safetensors file ({str(error)[:80]})", cure) from error
    seal = about.pop("sha256", None)
    if about.get("format") == today or seal is not None:
        if seal != digest([about, digest_of_arrays(arrays)]):
            raise DamagedError(path, "is damaged: its checksum is of other contents", cure)
    else:
        unverified(path)
    return arrays, about


@functools.cache
def unverified(path: Path) -> None:
    """Says it, once."""
    say(f"{path}: unverified, an earlier version wrote it without a checksum")
