"""Files: what is written is there whole or not at all, and what goes wrong outside is one line.

Whatever is half-written has a name `.NAME.*.partial` and is held by a lock of the process that writes it, which ends
with it: `sweep` removes what killed ones left.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from pad_jax.errors import UserError

_NEW = 0o666  # permissions of a new file, less the user's mask


def write_atomically(path: Path, content: bytes) -> None:
    """The whole file or none of it. Raises UserError where it cannot be written."""
    with file_atomically(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def file_atomically(path: Path) -> Iterator[Path]:
    """An empty file to write into, which becomes `path`. Raises UserError where that cannot be."""

    def make(partial: Path) -> int:
        return os.open(partial, os.O_RDWR | os.O_CREAT, _NEW)

    with _partial(path, make) as partial:
        yield partial
        with writing(path):
            os.replace(partial, path)


@contextlib.contextmanager
def folder_atomically(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes `folder` in place of what was there. Raises UserError where that cannot
    be."""

    def make(partial: Path) -> int:
        partial.mkdir()
        return os.open(partial, os.O_RDONLY)

    with _partial(folder, make) as partial:
        yield partial
        with writing(folder):
            before = _name_beside(folder)
            if folder.exists() or folder.is_symlink():
                os.replace(folder, before)
            os.replace(partial, folder)
            _remove(before)


@contextlib.contextmanager
def _partial(path: Path, make: Callable[[Path], int]) -> Iterator[Path]:
    """What `make` opens beside `path`, held while it is written, and removed unless it has got another name."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        file, partial = _held(path, make)
        try:
            yield partial
        finally:
            os.close(file)
            _remove(partial)


def _held(path: Path, make: Callable[[Path], int]) -> tuple[int, Path]:
    while True:
        partial = _name_beside(path)
        file = make(partial)
        if _hold(file) is not False and partial.exists():  # otherwise another process took it for a leftover
            return file, partial
        os.close(file)


def _name_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")


def _hold(file: int) -> bool | None:
    """Whether it is ours; None on a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def sweep(folder: Path, name: str = "*") -> None:
    """Removes what killed processes left half-written in a folder, of `name` or of anything."""
    for left in folder.glob(f".{name if name == '*' else glob.escape(name)}.*.partial"):
        with contextlib.suppress(OSError):
            file = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if _hold(file):
                    _remove(left)
            finally:
                os.close(file)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path, cure: str = "free some space there, or write elsewhere") -> Iterator[None]:
    """Whatever the system says against writing `path`, to Python or to polars, is a UserError."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be written ({reason}); {cure}") from error


def check_readable(path: Path, cure: str = "") -> None:
    """Raises UserError for what is not a file that can be read: a name that no file can have, a folder, a pipe, .."""
    behind = f"; {cure}" if cure else ""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist{behind}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}){behind}") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a file{behind}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read (Permission denied){behind}")


def check_name(path: Path, what: str) -> None:
    """Raises UserError for a path that the libraries that write below it would stumble over: not UTF-8, NUL, too long.

    `what` is the flag that gave it.
    """
    try:
        whole = str(path.absolute())
        parts = [len(part.encode()) for part in Path(whole).parts]
    except UnicodeEncodeError as error:
        raise UserError(f"{what}={path} is not UTF-8; name a folder that is") from error
    except OSError as error:
        raise UserError(f"the current folder cannot be found ({error.strerror})") from error
    if "\0" in whole:
        raise UserError(f"{what}={path} holds a NUL; name another")
    if max(parts) > _LONGEST_NAME or len(whole.encode()) > _LONGEST_PATH:
        raise UserError(
            f"{what}={whole[:60]}.. is too long: names may have {_LONGEST_NAME} bytes and paths {_LONGEST_PATH}, which "
            "leaves room for what is written below"
        )


_LONGEST_NAME, _LONGEST_PATH = 200, 3000
