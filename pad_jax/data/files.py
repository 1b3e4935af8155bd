"""Raw files: where they are looked for, how they are downloaded, how their tables are read."""

import contextlib
import csv
import gzip
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pooch

from pad_jax.console import console, say
from pad_jax.data.settings import DataSettings
from pad_jax.errors import UserError
from pad_jax.files import check_readable

#: A compressed file may hold so many times its own bytes, and so many bytes in any case: more is no table.
EXPANSION, SMALL = 100, 1 << 26
#: The longest line of a file that is read line by line, in bytes.
LONGEST_LINE = 1 << 24
_BLOCK = 1 << 20


def data_folder(config: DataSettings, folder: str) -> Path:
    """`config.data.path`, else $PAD_JAX_DATA/<folder>, else data/<folder>."""
    return Path(config.path) if config.path else usual_folder(folder)


def usual_folder(folder: str) -> Path:
    """$PAD_JAX_DATA/<folder>, else data/<folder>; a config file may give it as `config.data.path`."""
    return Path(os.environ.get("PAD_JAX_DATA") or "data") / folder


def find_files(config: DataSettings, folder: str, base_url: str, sha256: Mapping[str, str]) -> dict[str, Path]:
    """The named files in `data_folder`; what is missing is downloaded from `base_url` and checked against `sha256`.

    A file that is there is taken as it is: it may be the user's own; nothing is downloaded into `config.path`. Raises
    UserError when a file cannot be had.
    """
    place = data_folder(config, folder)
    paths = {name: place / name for name in sha256}
    missing = [path for path in paths.values() if not path.exists()]
    if missing and config.path:
        raise UserError(f"{missing[0]} is missing: put {', '.join(sha256)} there, or correct --config.data.path")
    absent = [path for path in (place, *place.parents) if not path.exists()]
    for path in missing:
        say(f"downloading {base_url}{path.name} to {place}")
        try:
            pooch.retrieve(
                base_url + path.name,
                known_hash="sha256:" + sha256[path.name],
                fname=path.name,
                path=place,
                downloader=pooch.HTTPDownloader(progressbar=console.is_terminal, timeout=30),
            )
        except (OSError, ValueError) as error:
            for made in absent:  # a folder that was made for nothing; one with files in it stays
                with contextlib.suppress(OSError):
                    made.rmdir()
            raise UserError(
                f"{path} is missing and could not be downloaded ({first_line(error)}): put the files "
                f"{', '.join(sha256)} into {place}, or set --config.data.path or PAD_JAX_DATA"
            ) from error
    return paths


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV file with a header that names `columns`; anything else is a UserError."""
    check_readable(path, "set --config.data.path or PAD_JAX_DATA")
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [c for c in columns if c not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path}, line 1: no column {missing[0]!r}; the header must name {', '.join(columns)}")
            for row in reader:
                if None in row or any(row[c] is None for c in columns):
                    raise UserError(f"{path}, line {reader.line_num}: the row does not have the header's columns")
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV in UTF-8: {first_line(error)}") from error


def blocks_of(path: Path) -> Iterator[bytes]:
    """The contents of a file, unpacked if it ends in .gz, some bytes at a time.

    Raises UserError for what cannot be read, and for what unpacks to more than `EXPANSION` times its size.
    """
    check_readable(path)
    most, size = max(SMALL, EXPANSION * path.stat().st_size), 0
    try:
        with opened(path) as file:
            while block := file.read(_BLOCK):
                size += len(block)
                if path.suffix == ".gz" and size > most:
                    told = f"unpacks to more than {EXPANSION} times its size, which no table does"
                    raise UserError(f"{path} {told}; unpack it yourself")
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error


def opened(path: Path) -> Any:
    """A file of bytes, unpacked if it ends in .gz."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, with their ends, unpacked if it ends in .gz.

    Raises UserError as `blocks_of`, and for a line of more than `LONGEST_LINE` bytes.
    """
    rest, number = b"", 0
    for block in blocks_of(path):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line + b"\n"
        number += len(lines)
        check_line(path, number + 1, len(rest))
    if rest:
        yield rest


def check_line(path: Path, number: int, length: int) -> None:
    """Raises UserError for a line of more than `LONGEST_LINE` bytes."""
    if length > LONGEST_LINE:
        raise UserError(f"{path}, line {number:,}: the line has more than {LONGEST_LINE >> 20} MiB, which no row has")


def first_line(error: BaseException) -> str:
    """The first line of its message, or its name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
