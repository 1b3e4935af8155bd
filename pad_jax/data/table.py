"""Own data: a table of events and a catalogue of items, in any of the formats of `read_table`."""

import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pad_jax.data.assemble import Events, assemble
from pad_jax.data.dataset import Dataset
from pad_jax.data.prepared import prepared
from pad_jax.data.readers import READERS, Reader
from pad_jax.data.tables import LINE, as_ids, distinct, read_table, times, whole_rows
from pad_jax.errors import UserError
from pad_jax.files import check_readable
from pad_jax.settings import Config, setting

#: A value that is there, and one that is missing, in a template; what joins two values has no bracket in it.
_THERE, _MISSING = "\x01", "\x02"
_JOINT = rf"[^{_THERE}{_MISSING}()\[\]]*"
#: What a missing value takes with it, one after the other until nothing changes.
_GONE_WITH_IT = [
    (rf'"[^{_THERE}"]*{_MISSING}[^{_THERE}"]*"', _MISSING),  # quotes and brackets around nothing else
    (rf"\([^{_THERE}()]*{_MISSING}[^{_THERE}()]*\)", _MISSING),
    (rf"\[[^{_THERE}\[\]]*{_MISSING}[^{_THERE}\[\]]*\]", _MISSING),
    (rf"\w[\w ]*[:=]\s*{_MISSING}", _MISSING),  # its label
    (rf"{_MISSING}{_JOINT}{_MISSING}", _MISSING),
    (rf'({_THERE}[)\]"]*){_JOINT}{_MISSING}', r"\1"),  # the joint before it, if a value stands before that
    (rf"{_MISSING}{_JOINT}?((?:\w[\w ]*[:=]\s*)?[(\[]?{_THERE})", r"\1"),  # else the joint behind it, but no label
]


@dataclass(frozen=True)
class TableSettings:
    """Files (.csv, .tsv, .parquet, .jsonl) and the names of their columns."""

    events: str = setting("", "file of events, in the folder `data.path` where that is given")
    catalogue: str = setting("", "file of items, in the same folder")
    user: str = setting("user", "column of users")
    item: str = setting("item", "column of items, in both files")
    time: str = setting(
        "time", "column of times, numbers or ISO 8601 (without a zone: UTC); empty: a user's events stand in order"
    )
    rating: str = setting("", "column of ratings; empty: every row is an event")
    above: float = setting(3.0, "ratings above this are events", "P")
    title: str = setting("", "column that lists show; empty: `title` where `text` names it, else its first column")
    text: str = setting("{title}", "what is encoded of an item: text with columns of the catalogue in braces")


def load(config: Config) -> Dataset:
    """The dataset; every item of the catalogue is a candidate, whether an event names it or not."""
    paths = [file_of(config, name) for name in ("events", "catalogue")]
    return prepared(config, paths, lambda: read(config, *paths))


def file_of(config: Config, name: str) -> Path:
    """The file `table.<name>`, events or catalogue, in the folder `data.path` where that is given.

    Raises UserError where it is none that can be read.
    """
    given, folder = getattr(config.table, name), config.data.path
    if not given:
        raise UserError(f"config.table.{name} is empty: set --config.table.{name}=FILE")
    path = Path(folder) / given
    check_readable(path, "set --config.data.path to its folder" if folder else f"set --config.table.{name}")
    return path


def read(config: Config, events: Path, catalogue: Path) -> Dataset:
    """Events of one user stand in order of time, or in file order where `table.time` names no column."""
    return assemble(config, read_events(events, config.table), read_catalogue(catalogue, config.table), only_met=False)


def events_of(config: Config) -> Events:
    """The events of `table.events` as they are, whatever items they name."""
    return read_events(file_of(config, "events"), config.table)


def catalogue_of(config: Config) -> pl.DataFrame:
    """The items of `table.catalogue`, see `read_catalogue`."""
    return read_catalogue(file_of(config, "catalogue"), config.table)


def event_columns(table: TableSettings) -> dict[str, str]:
    """The columns of a table of events by what they are; those without a name are not there."""
    columns = {"user": table.user, "item": table.item, "time": table.time, "rating": table.rating}
    return {name: column for name, column in columns.items() if column}


def item_columns(table: TableSettings) -> list[str]:
    """The columns of a catalogue that are read: the ids, what lists show, and what the text is made of."""
    names = columns_of(table.text)
    return [table.item, table.title or ("title" if "title" in names else names[0]), *names]


def read_events(path: Path, table: TableSettings, frame: pl.DataFrame | None = None) -> Events:
    """(user, item, time) of the rows with a rating above `table.above`, where there are ratings.

    `frame` holds the columns in place of a file; `path` is what messages call it then.
    """
    columns = event_columns(table)
    found = read_table(path, list(columns.values())) if frame is None else frame.with_row_index(LINE, 1)
    frame = found.select(LINE, **{n: pl.col(c) for n, c in columns.items()})
    frame = frame.with_columns(as_ids(path, found[columns[n]]).alias(n) for n in ("user", "item"))
    as_times: dict[str, Any] = {}
    if "time" in columns:
        time, as_times["cut"], as_times["shown"] = times(path, frame["time"])
        frame = frame.with_columns(time.alias("time"))
    if "rating" in columns:
        rating = pl.col("rating").cast(pl.Float64, strict=False)
        frame = frame.with_columns(rating=pl.when(rating.is_finite()).then(rating))
    whole = whole_rows(path, frame, list(columns))
    users, events = whole["user"], whole
    if "rating" in columns:
        events = whole.filter(pl.col("rating") > table.above).drop("rating")
    if not events.height:
        raise UserError(f"{path} has no events" + (f" rated above {table.above:g}" if table.rating else ""))
    out = {"incomplete or malformed": frame.height - whole.height}
    out[f"rated {table.above:g} or less (table.above)"] = whole.height - events.height
    told = tuple(f"{count:,} {what}" for what, count in out.items() if count)
    return Events(events, read=frame.height, out=told, users=users, **as_times)


def read_catalogue(path: Path, table: TableSettings) -> pl.DataFrame:
    """(item, title, text) of every item; the text is `table.text` with the named columns put in.

    An item without an id is skipped and counted; one without any of the columns has an empty text. Raises UserError for
    an id that stands twice.
    """
    _, title, *names = item_columns(table)
    frame = read_table(path, [table.item, title, *names])
    words = frame.select(_as_words(frame[name]) for name in dict.fromkeys([title, *names]))
    items = pl.DataFrame(
        [
            frame[LINE],
            as_ids(path, frame[table.item]).alias("item"),
            words[title].alias("title"),
            filled(table.text, words).alias("text"),
        ]
    )
    items = whole_rows(path, items, ("item",))
    if not items.height:
        raise UserError(f"{path} has no items")
    if not (items["text"] != "").any():
        raise UserError(f"{path}: no item has a value in {', '.join(names)}; set --config.table.text")
    return distinct(path, items)


def columns_of(text: str) -> list[str]:
    """The columns that `table.text` names. Raises UserError for what is no template."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"config.table.text={text!r} is not a template ({error}): write '{{title}}'") from error
    names = [name for _, name, *_ in parsed if name is not None]
    if not names or not all(names):
        raise UserError(f"config.table.text={text!r} must name columns: write '{{title}}, {{brand}}'")
    if any(form or conversion for _, _, form, conversion in parsed):
        raise UserError(f"config.table.text={text!r}: columns stand as they are, without ! and :, as in '{{title}}'")
    return names


def filled(text: str, words: pl.DataFrame) -> pl.Series:
    """The template with the values of every row; where one is missing, nothing of what joins, labels or encloses it is
    left. Rows that lack the same values are filled alike."""
    names = columns_of(text)
    lacking = pl.concat_str(pl.when(pl.col(name) == "").then(pl.lit("1")).otherwise(pl.lit("0")) for name in names)
    whole, found = pl.lit(""), words.select(lacking.alias("lacking"))
    for pattern in found["lacking"].unique():
        if "0" in pattern:
            row = pl.concat_str(_pieces(text, [flag == "1" for flag in pattern])).str.strip_chars()
            whole = pl.when(lacking == pattern).then(row).otherwise(whole)
    return words.with_columns(whole.alias(_THERE))[_THERE]


def _pieces(text: str, missing: list[bool]) -> list[pl.Expr]:
    """The literals and columns of a template that lacks some of its columns."""
    marked, names = "", []
    for literal, name, *_ in string.Formatter().parse(text):
        marked += literal
        if name is not None:
            gone = missing[marked.count(_THERE) + marked.count(_MISSING)]
            marked += _MISSING if gone else _THERE
            names += [] if gone else [name]
    before = ""
    while marked != before:
        before = marked
        for pattern, left in _GONE_WITH_IT:
            marked = re.sub(pattern, left, marked)
    literals = marked.replace(_MISSING, "").split(_THERE)
    columns = [*map(pl.col, names), pl.lit("")]
    return [piece for literal, column in zip(literals, columns, strict=True) for piece in (pl.lit(literal), column)]


def _as_words(column: pl.Series) -> pl.Series:
    """As text, "" for what is missing; numbers without a fraction as whole ones."""
    if column.dtype.is_float():
        column = column.set(~column.is_finite(), None)
        if (column == column.floor()).all() and (column.abs() < 2**53).all():
            column = column.cast(pl.Int64)
    return column.cast(pl.String).fill_null("").str.strip_chars()


READERS.register(
    "table",
    Reader(
        load,
        defaults={"data.keep": 0, "data.length": 0, "data.windows": "all", "data.whole": True},
        events=events_of,
        catalogue=catalogue_of,
    ),
    settings=TableSettings,
)
