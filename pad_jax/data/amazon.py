"""Amazon review data 2018, one category: ratings and metadata, as the data set's own files are.

ratings   `*.csv` (item, user, rating, timestamp; no header), or reviews as JSON lines (`reviewerID`, `asin`,
          `overall`, `unixReviewTime`)
metadata  `meta_*.json` (JSON lines with `asin` and `title`)

All of them plain or gzip.
"""

import html
from pathlib import Path
from typing import Any

import polars as pl

from pad_jax.data.assemble import Events, assemble
from pad_jax.data.dataset import Dataset
from pad_jax.data.files import data_folder
from pad_jax.data.prepared import prepared
from pad_jax.data.readers import READERS, Reader
from pad_jax.data.tables import collect, number, number_cut, read_json_lines, read_lines, whole_number, whole_rows
from pad_jax.errors import UserError
from pad_jax.settings import Config

LEAST = 3.0  # [P] ratings above this are events


def load(config: Config) -> Dataset:
    """The dataset: ratings above 3 of items with a title; items in the order of the metadata.

    Raises UserError where the folder does not hold one file of ratings and one of metadata.
    """
    folder = data_folder(config.data, config.dataset)
    metadata = _files(folder, ("meta_*.json", "meta_*.jsonl"))
    ratings = [p for p in _files(folder, ("*.csv", "*.json", "*.jsonl")) if p not in metadata]
    if (len(ratings), len(metadata)) != (1, 1):
        raise UserError(
            f"{folder} must hold one file of ratings (.csv, .json, .jsonl) and one of metadata (meta_*.json), plain or "
            f"gzip, not {[p.name for p in (*ratings, *metadata)]}; set --config.data.path or PAD_JAX_DATA"
        )
    return prepared(config, (*ratings, *metadata), lambda: read(config, ratings[0], metadata[0]))


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for end in ("", ".gz") for path in folder.glob(pattern + end)})


def read(config: Config, ratings: Path, metadata: Path) -> Dataset:
    """Titles have their HTML entities decoded; of metadata that name an item twice the first counts."""
    titles = read_json_lines(metadata, {"item": ("asin", _text), "title": ("title", _title)})
    catalogue = whole_rows(metadata, titles, ("item", "title")).unique("item", keep="first", maintain_order=True)
    found = _reviews(ratings) if ".json" in ratings.name else _ratings(ratings)
    liked = found.filter((pl.col("rating") > LEAST) & pl.col("rating").is_finite()).select("user", "item", "time")
    low = found.height - liked.height
    out = (f"{low:,} rated {LEAST:g} or less",) if low else ()
    events = Events(liked, number_cut(ratings), read=found.height, out=out)
    return assemble(config, events, catalogue.with_columns(text="title"), only_met=True)


def _ratings(path: Path) -> pl.DataFrame:
    lines = read_lines(path, ",", ("item", "user", "rating", "time"))
    numbers = pl.col("rating").cast(pl.Float32, strict=False), pl.col("time").cast(pl.Int64, strict=False)
    return collect(path, lines.with_columns(*numbers), ("user", "item", "rating", "time"))


def _reviews(path: Path) -> pl.DataFrame:
    fields: dict[str, Any] = {"user": ("reviewerID", _text), "item": ("asin", _text)}
    fields |= {"rating": ("overall", number), "time": ("unixReviewTime", whole_number)}
    return whole_rows(path, read_json_lines(path, fields), list(fields))


def _text(value: Any) -> str:
    """Raises ValueError for what is not a string."""
    if not isinstance(value, str):
        raise ValueError
    value.encode()
    return value


def _title(value: Any) -> str:
    return html.unescape(_text(value)).strip()


#: Items and ends of the buckets of the paper's data (official code).
KNOWN = 423191, [233, 856, 2090, 4327, 8214, 14950, 27012, 50742, 109145]
READERS.register("electronics", Reader(load, known=KNOWN))
