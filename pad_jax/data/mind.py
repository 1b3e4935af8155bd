"""MIND, the news clicks of the paper, from either of two forms that are told apart by their files.

prepared  `*users*.tsv` (user, tab, item ids in order) and `*items*.tsv` (item id, tab, title): what the paper used
raw       `behaviors.tsv` and `news.tsv` of the release, of one or several of its parts: in the folder itself, in
          folders in it, or in zip archives in it
"""

import contextlib
import lzma
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from pad_jax.console import say
from pad_jax.data.assemble import Events, assemble
from pad_jax.data.dataset import Dataset
from pad_jax.data.files import EXPANSION, SMALL, check_line, data_folder
from pad_jax.data.prepared import prepared
from pad_jax.data.readers import READERS, Reader
from pad_jax.data.tables import LINE, as_date, collect, date_cut, distinct, read_lines
from pad_jax.errors import UserError
from pad_jax.settings import Config

BEHAVIORS, NEWS = "behaviors.tsv", "news.tsv"
NOTE = "raw MIND: not comparable with the paper's numbers, which are of a prepared selection"
_NEWS = ("item", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
_BEHAVIORS = ("impression", "user", "time", "history", "shown")
_TIME = "%m/%d/%Y %I:%M:%S %p"
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError, struct.error)
_EARLIEST = -(2**62)  # the time of what a history names


def load(config: Config) -> Dataset:
    """The dataset; items are numbered in the order of the news files, those that no kept event names left out.

    Raises UserError where neither form, or more than one, is in the folder.
    """
    folder = data_folder(config.data, "mind")
    raw = sorted(p for p in (*folder.glob(BEHAVIORS), *folder.glob(f"*/{BEHAVIORS}"), *folder.glob("*.zip")))
    users, items = sorted(folder.glob("*users*.tsv")), sorted(folder.glob("*items*.tsv"))
    if bool(raw) == bool(users or items) or (not raw and (len(users), len(items)) != (1, 1)):
        found = ", ".join(p.name for p in (*raw, *users, *items)) or "none of them"
        raise UserError(
            f"{folder} must hold either {BEHAVIORS} and {NEWS} (or folders or zip archives with them), or one "
            f"*users*.tsv and one *items*.tsv; it has {found}; set --config.data.path or PAD_JAX_DATA"
        )
    if not raw:
        return prepared(config, (users[0], items[0]), lambda: read_prepared(config, users[0], items[0]))
    absent = next((p.parent for p in raw if p.suffix != ".zip" and not (p.parent / NEWS).is_file()), None)
    if absent is not None:
        raise UserError(f"{absent / NEWS} is missing; put it beside {BEHAVIORS}")
    files = [p for path in raw for p in ((path,) if path.suffix == ".zip" else (path, path.parent / NEWS))]
    return prepared(config, files, lambda: read_raw(config, raw))


def read_prepared(config: Config, users: Path, items: Path) -> Dataset:
    """The two tables of the paper."""
    catalogue = collect(items, read_lines(items, "\t", ("item", "title")), ("item", "title"))
    rows = collect(users, read_lines(users, "\t", ("user", "items")), ("user", "items"))
    histories = rows.select("user", item=pl.col("items").str.split(" ")).explode("item").filter(pl.col("item") != "")
    catalogue = distinct(items, catalogue).with_columns(text="title")
    return assemble(config, Events(histories, read=histories.height), catalogue, only_met=True)


def read_raw(config: Config, parts: list[Path]) -> Dataset:
    """A user's events: the history of the first impression, then the clicked news of all impressions in time order.

    Histories have no times, but lie before their impression. With `data.time` the history of a user who is first seen
    at t_valid or later may hold events from there on: it is left out, and one line says of how many.

    Raises UserError where two parts hold the same impressions.
    """
    impressions, histories, catalogues = [], [], []
    known: dict[int, Path] = {}
    for part in parts:
        with _unpacked(part) as (behaviors, news):
            shown = part / BEHAVIORS if part.suffix == ".zip" else behaviors  # as messages call it
            items = read_lines(news, "\t", _NEWS).select(LINE, "item", "title")
            catalogues.append(collect(shown.with_name(NEWS), items, ("item", "title")))
            lines = read_lines(behaviors, "\t", _BEHAVIORS).select(
                LINE,
                "user",
                "history",
                time=pl.col("time").str.to_datetime(_TIME, time_unit="us", strict=False).dt.timestamp("us"),
                item=pl.col("shown").str.extract_all(r"\S+-1(?:\s|$)"),
            )
            found = collect(shown, lines, ("user", "time", "item"))
        same = known.setdefault(int(found.select("user", "time").hash_rows().sum()), part)
        if same is not part:
            raise UserError(f"{same} and {part} hold the same impressions; leave one of them")
        impressions.append(found.select("user", "time", "item"))
        firsts = found.sort("time", maintain_order=True).unique("user", keep="first", maintain_order=True)
        histories.append(firsts.select("user", "time", "history"))
    first = pl.concat(histories).sort("time", maintain_order=True).unique("user", keep="first", maintain_order=True)
    cut = date_cut(parts[0])
    if config.data.time:
        early = first.filter(pl.col("time") < cut(config.data.time[0]))
        if early.height < first.height:
            say(f"the histories of {first.height - early.height:,} users first seen after t_valid are left out")
        first = early
    before = first.select("user", pl.lit(_EARLIEST, pl.Int64).alias("time"), item=pl.col("history").str.split(" "))
    clicked = pl.concat(impressions).explode("item")
    clicked = clicked.with_columns(pl.col("item").str.strip_chars().str.strip_suffix("-1"))
    events = pl.concat([before.explode("item"), clicked]).filter(pl.col("item") != "")
    catalogue = pl.concat(catalogues).unique("item", keep="first", maintain_order=True)  # parts share news
    catalogue = catalogue.with_columns(text="title")
    return assemble(config, Events(events, cut, as_date, events.height), catalogue, only_met=True, note=NOTE)


@contextlib.contextmanager
def _unpacked(part: Path) -> Iterator[tuple[Path, Path]]:
    """behaviors.tsv and news.tsv of a folder or an archive. Of an archive these two alone are unpacked, to names of
    our own in a temporary folder that is removed again."""
    if part.suffix != ".zip":
        yield part, part.parent / NEWS
        return
    with tempfile.TemporaryDirectory() as place:
        paths = Path(place, BEHAVIORS), Path(place, NEWS)
        try:
            with zipfile.ZipFile(part) as archive:
                for path in paths:
                    members = [m for m in archive.infolist() if m.filename.rpartition("/")[2] == path.name]
                    if len(members) != 1:
                        raise UserError(f"{part} holds {len(members)} files named {path.name}; it must be one")
                    if members[0].file_size > max(SMALL, EXPANSION * members[0].compress_size):
                        raise UserError(
                            f"{part}: {path.name} would be {members[0].file_size:,} bytes, more than {EXPANSION} times "
                            "what it is now, which no table does; unpack it yourself"
                        )
                    with archive.open(members[0]) as source, open(path, "wb") as target:
                        _unpack(part, path.name, source, target)
        except _BROKEN as error:
            raise UserError(f"{part} cannot be unpacked: {error}; unpack it yourself, or fetch it again") from error
        say(f"{part}: unpacked")
        yield paths


def _unpack(part: Path, name: str, source: Any, target: Any) -> None:
    """Raises UserError where a line is longer than any row."""
    number = length = 0
    while block := source.read(1 << 20):
        number += block.count(b"\n")
        length = length + len(block) if b"\n" not in block else len(block) - block.rindex(b"\n") - 1
        check_line(part / name, number + 1, length)
        target.write(block)


#: Items and ends of the buckets of the paper's data (official code).
KNOWN = 79707, [41, 127, 276, 517, 889, 1467, 2413, 4070, 7618]
READERS.register("mind", Reader(load, known=KNOWN))
