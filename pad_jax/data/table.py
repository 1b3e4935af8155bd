"""Own data: a table of events and a catalogue of items, in any of the formats of `read_table`."""

import string
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pad_jax.data.assemble import Events, assemble
from pad_jax.data.dataset import Dataset
from pad_jax.data.prepared import prepared
from pad_jax.data.readers import READERS, Reader
from pad_jax.data.tables import LINE, distinct, read_table, times, whole_rows
from pad_jax.errors import UserError
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class TableSettings:
    """Files (.csv, .tsv, .parquet, .jsonl) and the names of their columns."""

    events: str = setting("", "file of events")
    catalogue: str = setting("", "file of items")
    user: str = setting("user", "column of users")
    item: str = setting("item", "column of items, in both files")
    time: str = setting("time", "column of times, numbers or ISO 8601; empty: a user's events stand in order")
    rating: str = setting("", "column of ratings; empty: every row is an event")
    above: float = setting(3.0, "ratings above this are events", "P")
    text: str = setting("{title}", "what is encoded of an item: text with columns of the catalogue in braces")


def load(config: Config) -> Dataset:
    """The dataset; every item of the catalogue is a candidate, whether an event names it or not."""
    table = config.table
    for name in ("events", "catalogue"):
        if not getattr(table, name):
            raise UserError(f"config.table.{name} is empty: set --config.table.{name}=FILE")
        if not Path(getattr(table, name)).is_file():
            raise UserError(f"{getattr(table, name)} does not exist; set --config.table.{name}")
    paths = Path(table.events), Path(table.catalogue)
    return prepared(config, paths, lambda: read(config, *paths))


def read(config: Config, events: Path, catalogue: Path) -> Dataset:
    """Events of one user stand in order of time, or in file order where `table.time` names no column."""
    return assemble(config, read_events(events, config.table), read_catalogue(catalogue, config.table), only_met=False)


def read_events(path: Path, table: TableSettings) -> Events:
    """(user, item, time) of the rows with a rating above `table.above`, where there are ratings."""
    columns = {"user": table.user, "item": table.item, "time": table.time, "rating": table.rating}
    columns = {name: column for name, column in columns.items() if column}
    frame = read_table(path, list(columns.values()))
    frame = frame.select(LINE, **{n: pl.col(c) for n, c in columns.items()})
    frame = frame.with_columns(pl.col("user", "item").cast(pl.String))
    cut = None
    if "time" in columns:
        time, cut = times(path, frame["time"])
        frame = frame.with_columns(time.alias("time"))
    if "rating" in columns:
        frame = frame.with_columns(pl.col("rating").cast(pl.Float64, strict=False))
    frame = whole_rows(path, frame, list(columns))
    if "rating" in columns:
        frame = frame.filter((pl.col("rating") > table.above) & pl.col("rating").is_finite()).drop("rating")
    if not frame.height:
        raise UserError(f"{path} has no events" + (f" rated above {table.above:g}" if table.rating else ""))
    return Events(frame, cut)


def read_catalogue(path: Path, table: TableSettings) -> pl.DataFrame:
    """(item, text) of every item; the text is `table.text` with the named columns put in.

    An item without an id, or with none of the columns, is skipped and counted. Raises UserError for an id that stands
    twice.
    """
    try:
        template = [(literal, name) for literal, name, *_ in string.Formatter().parse(table.text)]
    except ValueError as error:
        raise UserError(f"config.table.text={table.text!r} is not a template ({error}): write '{{title}}'") from error
    names = [name for _, name in template if name is not None]
    if not names or not all(names):
        raise UserError(f"config.table.text={table.text!r} must name columns: write '{{title}}, {{brand}}'")
    frame = read_table(path, [table.item, *names])
    value = {name: pl.col(name).cast(pl.String).fill_null("").str.strip_chars() for name in names}
    pieces = [piece for literal, name in template for piece in (pl.lit(literal), *([value[name]] if name else []))]
    told = pl.any_horizontal(column != "" for column in value.values())
    text = pl.when(told).then(pl.concat_str(pieces).str.strip_chars())
    items = whole_rows(path, frame.select(LINE, item=pl.col(table.item).cast(pl.String), text=text), ("item", "text"))
    if not items.height:
        raise UserError(f"{path} has no items with text")
    return distinct(path, items)


READERS.register("table", Reader(load), settings=TableSettings)
