"""The text table: one vector per item title, in a safetensors file that says where it came from."""

import hashlib
import json
import math
import os
import time
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from pad_jax import sealed
from pad_jax.data.dataset import Dataset
from pad_jax.data.files import first_line
from pad_jax.errors import UserError
from pad_jax.files import check_readable, write_atomically
from pad_jax.sealed import DamagedError
from pad_jax.text.settings import TextSettings

FORMAT, EARLIER = "pad_jax text table 2", "pad_jax text table 1"
_NPY = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
#: Settings that a manifest has of the encoder, and that make other vectors when they are others.
SETTINGS = (
    *("encoder", "revision", "adapters", "bidirectional", "precision"),
    *("pooling", "normalize", "prompt", "max_length"),
)
_NAMES = {"float32": "F32", "float16": "F16"}
_ROWS = 1 << 14  # that are checked at once
_BLOCK = 1 << 24  # bytes that are read at once
_NO_SEAL = b"0" * 64  # where the checksum will stand


class TableWriter:
    """A text table on its way: tensor `text` [N+1, E] (row 0 zeros) and its manifest, written row by row.

    Rows go to `<path>.partial`, which becomes `path` when it is whole. `<path>.partial.json` says how many batches are
    safely on disk; another writer with the same header and `identity` goes on after `done` of them.
    """

    EVERY = 10.0  # seconds between two marks of progress

    def __init__(
        self,
        path: Path,
        dataset: Dataset,
        width: int,
        dtype: np.dtype,
        manifest: Mapping[str, Any],
        identity: Mapping[str, Any],
    ):
        rows = dataset.items + 1
        self.path, self._dtype, self._row = path, dtype, width * dtype.itemsize
        self._header = _header(dataset, manifest, (rows, width), dtype)
        self._identity = json.loads(json.dumps({"header": self._header.decode("latin-1"), **identity}))
        self._data, self._mark = path.with_name(path.name + ".partial"), path.with_name(path.name + ".partial.json")
        self._size = len(self._header) + rows * self._row
        self.done, self._spoken = 0, time.monotonic()

    def __enter__(self) -> "TableWriter":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.done = self._found()
            if not self.done:
                self._mark.unlink(missing_ok=True)  # it says nothing of what is written now
            self._file = os.open(self._data, os.O_RDWR | os.O_CREAT | (0 if self.done else os.O_TRUNC), 0o666)
            if not self.done:
                os.truncate(self._file, self._size)
                os.pwrite(self._file, self._header, 0)
        except OSError as error:
            raise self._unwritable(error) from error
        return self

    def __exit__(self, *_) -> None:
        os.close(self._file)

    def put(self, item: int, row: Float[np.ndarray, " E"]) -> None:
        try:
            os.pwrite(self._file, row.tobytes(), len(self._header) + item * self._row)
        except OSError as error:
            raise self._unwritable(error) from error

    def batch_done(self) -> None:
        """One more batch was put; from time to time this is made sure of on disk."""
        self.done += 1
        if time.monotonic() - self._spoken >= self.EVERY:
            try:
                os.fsync(self._file)
                write_atomically(self._mark, json.dumps(self._identity | {"done": self.done}).encode())
            except OSError as error:
                raise self._unwritable(error) from error
            self._spoken = time.monotonic()

    def finish(self) -> None:
        """The whole table gets its checksum and takes its name."""
        try:
            seal = _seal(self._header, self._blocks()).encode()
            os.pwrite(self._file, self._header.replace(_NO_SEAL, seal), 0)
            os.fsync(self._file)
            self._mark.unlink(missing_ok=True)
            os.replace(self._data, self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _blocks(self) -> Iterator[bytes]:
        """What was put, some of it at a time."""
        for begin in range(len(self._header), self._size, _BLOCK):
            yield os.pread(self._file, min(_BLOCK, self._size - begin), begin)

    def _found(self) -> int:
        """How many batches another run with the same identity has left."""
        try:
            found = json.loads(self._mark.read_text())
            same = self._data.stat().st_size == self._size and found | self._identity == found
            return int(found["done"]) if same else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"text table {self.path} cannot be written ({error}); set --config.text.table")


def _header(dataset: Dataset, manifest: Mapping[str, Any], shape: tuple[int, int], dtype: np.dtype) -> bytes:
    """The head of a safetensors file with the one tensor `text`."""
    metadata = {
        "format": FORMAT,
        "dataset": dataset.name,
        "items": str(dataset.items),
        "item_list_sha256": dataset.item_list_sha256,
        "texts_sha256": dataset.texts_sha256,
        "manifest": json.dumps(dict(manifest), sort_keys=True),
        "sha256": _NO_SEAL.decode(),
    }
    size = shape[0] * shape[1] * dtype.itemsize
    tensor = {"dtype": _NAMES[dtype.name], "shape": list(shape), "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": metadata, "text": tensor}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def is_of_other_texts(path: Path, dataset: Dataset) -> bool:
    """Whether a file is a table of this project that says that it was made from other texts."""
    try:
        check_readable(path)
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError, UserError):
        return False
    return header.get("texts_sha256", dataset.texts_sha256) != dataset.texts_sha256


def _seal(header: bytes, data: Iterable[bytes | memoryview]) -> str:
    """Of the head without its own checksum, and of all rows."""
    found = hashlib.sha256(header)
    for block in data:
        found.update(block)
    return found.hexdigest()


def check_replaceable(path: Path) -> None:
    """Raises UserError for a file that is not a table of this project: it may be somebody's own vectors."""
    if not path.exists():
        return
    check_readable(path, "set another --config.text.table")
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("format") in (FORMAT, EARLIER):
                return
    except (SafetensorError, OSError):
        pass
    raise UserError(f"{path} is not a table that the job `encode` made: remove it, or set another --config.text.table")


def read_table(path: Path, dataset: Dataset) -> tuple[Float[np.ndarray, "I E"], dict[str, Any]]:
    """The table and its manifest.

    Raises UserError for a table of other items, with NaN or infinity, or for what is not a table.

    Own vectors are a table, too: a `.npy` file or a safetensors file with a single tensor, a row for each item in the
    order of the dataset, with or without a row of zeros before them.
    """
    check_readable(path, "make it with the job `encode`, or set --config.text.table")
    try:
        if path.suffix == ".npy":
            return _own(path, dataset)
        with safe_open(path, "numpy") as file:
            header, names = file.metadata() or {}, list(file.keys())
            ours = any(name in header for name in ("manifest", "item_list_sha256"))
            if not ours and len(names) == 1:
                return _own(path, dataset)
            if not ours or "text" not in names:
                raise UserError(
                    f"{path} is not a text table: make one with the job `encode`, or bring a .npy file or a "
                    "safetensors file with one tensor, a row for each item"
                )
            table = file.get_tensor("text")
        _verify(path, header, table)
        items, name, sha256 = (header[field] for field in ("items", "dataset", "item_list_sha256"))
        texts = header.get("texts_sha256", dataset.texts_sha256)  # earlier versions do not say
        manifest = dict(json.loads(header["manifest"]))
    except (SafetensorError, OSError, EOFError) as error:
        raise UserError(f"{path} is not a safetensors or .npy file ({error}); make it with the job `encode`") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} lacks a complete header ({error}); make it with the job `encode`") from error
    if sha256 != dataset.item_list_sha256:
        raise UserError(
            f"{path} was made for the {items} items of {name}, not for these {dataset.items} "
            f"of {dataset.name}; remove it and run the job `encode`, or set --config.text.table"
        )
    if texts != dataset.texts_sha256:
        raise UserError(
            f"{path} was made from other texts of these items (another config.table.text or catalogue): remove it "
            "and run the job `encode`, or set --config.text.table"
        )
    if table.ndim != 2 or table.shape[0] != dataset.items + 1 or not table.shape[1] or table[0].any():
        raise UserError(f"{path}: tensor `text` must be [{dataset.items + 1}, d] with a zero row 0, not {table.shape}")
    check_finite(path, table[1:], range(1, len(table)))
    return table, manifest


def _verify(path: Path, header: Mapping[str, str], table: np.ndarray) -> None:
    """Raises DamagedError for a table that is not the one that was written."""
    if header.get("format") == EARLIER and "sha256" not in header:
        sealed.unverified(path)
        return
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        file.seek(0)
        head = file.read(8 + size)
    seal = header.get("sha256", "")
    blank = head.replace(seal.encode(), _NO_SEAL) if len(seal) == len(_NO_SEAL) else head
    if _seal(blank, [np.ascontiguousarray(table).reshape(-1).view(np.uint8).data]) != seal:
        cure = "remove it and run the job `encode`, or set --config.text.table"
        raise DamagedError(path, "is damaged: its checksum is of other contents", cure)


def _own(path: Path, dataset: Dataset) -> tuple[Float[np.ndarray, "I E"], dict[str, Any]]:
    """A table that says nothing of itself."""
    rows = read_own(path, dataset.items, dataset.name)
    return np.concatenate([np.zeros((1, rows.shape[1]), rows.dtype), rows]), {"encoder": path.name, "own": True}


def _own_rows(path: Path, rows: Any, items: int, name: str) -> Float[np.ndarray, "N E"]:
    shape, kind = np.shape(rows), getattr(rows, "dtype", None)
    if len(shape) == 2 and shape[0] == items + 1 and not rows[0].any():
        rows = rows[1:]
    numbers = kind in (np.float16, np.float32, np.float64)
    if len(shape) != 2 or len(rows) != items or not shape[1] or not numbers:
        raise UserError(
            f"{path}: own vectors must be [{items}, d] of float16, float32 or float64, a row for each item of {name} "
            f"in its order, not {list(shape)} of {kind}; make a table with the job `encode`"
        )
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32) if kind == np.float64 else rows
    check_finite(path, rows, range(1, len(rows) + 1))
    return rows


def read_own(path: Path, items: int, name: str) -> Float[np.ndarray, "N E"]:
    """Own vectors of a catalogue of `items`, from `.npy` or safetensors. Raises UserError as `read_table`."""
    check_readable(path)
    try:
        if path.suffix == ".npy":
            return _own_rows(path, _read_npy(path), items, name)
        with safe_open(path, "numpy") as file:
            names = list(file.keys())
            if len(names) != 1:
                raise UserError(f"{path} holds {len(names)} tensors; own vectors are one")
            return _own_rows(path, file.get_tensor(names[0]), items, name)
    except (SafetensorError, OSError, EOFError, ValueError, SyntaxError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not a safetensors or .npy file ({first_line(error)})") from error


def _read_npy(path: Path) -> np.ndarray:
    """An array of numbers. Raises ValueError or an error of its kind for a file that is not what its header says."""
    with open(path, "rb") as file:
        version = tuple(np.lib.format.read_magic(file))
        if version not in _NPY:
            raise ValueError(f"version {version} of the format is not known")
        try:
            shape, columns_first, dtype = _NPY[version](file)
        except tokenize.TokenError as error:
            raise ValueError("its header cannot be read") from error
        if dtype.kind not in "fiub":
            raise ValueError(f"it holds {dtype}, not numbers")
        claimed, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
        if min(shape, default=0) < 0 or claimed != there:
            raise ValueError(f"its header claims {claimed:,} bytes and it has {there:,}")
        flat = np.fromfile(file, dtype)
    return flat.reshape(shape, order="F" if columns_first else "C")


def check_settings(path: Path, manifest: Mapping[str, Any], config: TextSettings) -> None:
    """Raises UserError for a table of other settings than `config`, where the manifest says so."""
    for name in SETTINGS:
        here = getattr(config, name)
        here = list(here) if isinstance(here, tuple) else here
        there = manifest.get(name, here)
        if there != here and (name != "revision" or here):
            raise UserError(
                f"{path} was made with config.text.{name}={there!r}, not {here!r}: run the job `encode` again, or set "
                "--config.text.table"
            )


def check_finite(path: Path, rows: np.ndarray, items: Sequence[int]) -> None:
    """Raises UserError, naming the first of `items`, where rows hold NaN or infinity."""
    fine = np.concatenate([np.isfinite(rows[n : n + _ROWS]).all(axis=1) for n in range(0, len(rows), _ROWS)])
    bad = np.flatnonzero(~fine)
    if len(bad):
        raise UserError(
            f"{path}: the vectors of {len(bad)} items hold NaN or infinity, item {items[bad[0]]} first; encode again, "
            "in float32 if the encoder overflows"
        )
