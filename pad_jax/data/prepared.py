"""Prepared datasets on disk: what was read from the same files with the same settings is not read again."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl

from pad_jax import sealed
from pad_jax.console import say
from pad_jax.data.dataset import Cuts, Dataset
from pad_jax.data.files import first_line
from pad_jax.data.readers import READERS, reader_name
from pad_jax.data.tables import BROKEN
from pad_jax.errors import UserError
from pad_jax.files import folder_atomically
from pad_jax.settings import Config, as_dict, dotted

ROOT = Path("runs")
FORMAT = 2
#: Fields of `config.data` that do not change what is read.
_ELSEWHERE = ("path", "holdout", "length", "windows", "buckets")
#: Modules that every reader works with; beside them, only its own file decides what is read.
_SHARED = ("assemble", "dataset", "files", "tables", "prepared")


def prepared(config: Config, files: Iterable[Path], read: Callable[[], Dataset]) -> Dataset:
    """What `read` makes of `files`: from runs/<dataset>/prepared-<key>/ if it is there, and else it is put there.

    The key is a hash of the files' contents, of the settings that concern them and of the code that reads them, so
    that nothing stale is ever found. The folder holds `items.parquet` (item, title, text; row n is item number n + 1),
    `users.parquet`, `events.parquet` and `manifest.json`.
    """
    folder = ROOT / config.dataset / f"prepared-{_key(config, files)}"
    if (folder / "manifest.json").exists():
        try:
            return _read(config.dataset, folder)
        except (KeyError, TypeError, UserError, *BROKEN) as error:
            say(f"{folder} is damaged and made again ({type(error).__name__})")
    dataset = read()
    _write(dataset, folder)
    return dataset


def _key(config: Config, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    reader = reader_name(config)
    entry = READERS.entry(reader)
    for code in (*(Path(__file__).with_name(f"{name}.py") for name in _SHARED), Path(entry.source)):
        digest.update(code.read_bytes() if code.is_file() else b"")  # a notebook is not a file
    own = {name: value for name, value in dotted(as_dict(config)).items() if name.startswith(f"{entry.section}.")}
    settings = {k: v for k, v in dataclasses.asdict(config.data).items() if k not in _ELSEWHERE}
    digest.update(json.dumps([config.dataset, reader, settings, own], default=str).encode())
    for path in files:
        try:
            with open(path, "rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from error
    return digest.hexdigest()[:16]


def _write(dataset: Dataset, folder: Path) -> None:
    """The whole folder or none of it; whoever writes the same at the same time has the same to write."""
    users = {"user": dataset.user_ids, "start": dataset.starts[:-1], **dataset.cuts._asdict()}
    counts = {"users": dataset.users, "items": dataset.items, "events": len(dataset.events)}
    told = {name: getattr(dataset, name) for name in ("note", "account", "until")}
    manifest = {"dataset": dataset.name, **told, **counts, "fingerprint": dataset.fingerprint}
    try:
        with folder_atomically(folder) as partial:
            items = {"item": dataset.item_ids, "title": dataset.titles, "text": dataset.texts}
            pl.DataFrame(items).write_parquet(partial / "items.parquet")
            pl.DataFrame(users).write_parquet(partial / "users.parquet")
            pl.DataFrame({"item_number": dataset.events}).write_parquet(partial / "events.parquet")
            sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(partial.iterdir())}
            sealed.write_json(partial / "manifest.json", manifest | {"format": FORMAT, "files": sums})
    except UserError as error:
        if not (folder / "manifest.json").exists():  # otherwise another process has made the same meanwhile
            say(f"{first_line(error)}: the data will be read again next time")


def _read(name: str, folder: Path) -> Dataset:
    manifest = sealed.read_json(folder / "manifest.json", FORMAT, "remove it")
    for part, sum_then in manifest["files"].items():
        if hashlib.sha256(sealed.read_bytes(folder / part, "remove it")).hexdigest() != sum_then:
            raise ValueError(f"{part} is not what was written")
    items, users, events = (pl.read_parquet(folder / f"{part}.parquet") for part in ("items", "users", "events"))
    titles, texts = items["title"].to_list(), items["text"].to_list()
    dataset = Dataset(
        name,
        items["item"].to_list(),
        titles,
        users["user"].to_list(),
        events["item_number"].to_numpy(),
        np.append(users["start"].to_numpy(), events.height),
        Cuts(*(users[field].to_numpy() for field in Cuts._fields)),
        manifest["note"],
        [] if texts == titles else texts,
        manifest["account"],
        manifest["until"],
    )
    if dataset.fingerprint != manifest["fingerprint"]:
        raise ValueError("the contents are not what was written")
    return dataset
