"""Tables of other people: CSV, TSV, Parquet, JSON lines and lines without quotes, plain or gzip, into polars frames.

A row that cannot be read is skipped and counted, and one line says so; a file that cannot be read is a UserError.
"""

import csv
import io
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from pad_jax.console import say
from pad_jax.data.files import EXPANSION, SMALL, blocks_of, first_line, lines_of, opened
from pad_jax.errors import UserError
from pad_jax.files import check_readable

#: From a value of `config.data.time` to a number that times are compared with.
Cut = Callable[[str | int | float], int | float]
#: What polars raises for files that are not as they should be.
BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
#: The column that says in which line of its file a row stands, as if no field had line breaks.
LINE = "line of the file"
_CHUNK = 1 << 18  # JSON lines that are held as Python objects
_NEVER = "\x01"  # separates nothing
_ODD = "a line holds the byte 1, which no text has"
_DATES = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d")
_ZONED = ("%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%d %H:%M:%S%.f%:z")


def read_table(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """The named columns of a table with a header: `.csv`, `.tsv`, `.parquet`, `.jsonl`, or the text ones with `.gz`.

    Text files give strings, and all files the column `LINE`. Values that a row lacks are null. Raises
    UserError with the line where the file's own form breaks, and for a column that is not there.
    """
    columns = list(dict.fromkeys(columns))
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    check_readable(path)
    try:
        if kind == "parquet":
            _check_rows(path)
            return plain(path, pl.scan_parquet(path, glob=False).select(columns).collect()).with_row_index(LINE, 1)
        if kind in ("jsonl", "ndjson", "json"):
            return read_json_lines(path, {name: (name, as_text) for name in columns})
        if kind in ("csv", "tsv"):
            separator = "," if kind == "csv" else "\t"
            packed = path.suffix == ".gz"
            source = io.BytesIO(b"".join(blocks_of(path))) if packed else path
            frame = pl.read_csv(source, separator=separator, columns=columns, infer_schema=False, glob=False)
            return frame.with_row_index(LINE, 2)
    except pl.exceptions.ColumnNotFoundError as error:
        raise UserError(f"{path}: {first_line(error)}; name the columns with --config.table") from error
    except BROKEN as error:
        where = _broken_row(path, separator) if kind in ("csv", "tsv") else ""
        raise UserError(f"{path}{where} cannot be read: {first_line(error)}") from error
    raise UserError(f"{path} is not a .csv, .tsv, .parquet or .jsonl file (the first two and the last also .gz)")


def plain(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """The same. Raises UserError for a column whose values are neither text, numbers nor dates."""
    for name, kind in frame.schema.items():
        text = isinstance(kind, pl.String | pl.Categorical | pl.Enum | pl.Null)
        if not (text or kind.is_numeric() or isinstance(kind, pl.Date | pl.Datetime)):
            raise UserError(f"{path}: column {name!r} holds {kind}; it must hold text, numbers or dates")
    return frame.with_columns(pl.col(pl.Categorical, pl.Enum, pl.Null).cast(pl.String))


def as_ids(path: Path, column: pl.Series) -> pl.Series:
    """Ids as text, numbers without a fraction as whole ones. Raises UserError for numbers with one, and for dates."""
    refused = UserError(f"{path}: column {column.name!r} holds ids, which must be text or whole numbers below 2**53")
    if column.dtype.is_temporal():
        raise refused
    if column.dtype.is_float():
        column = column.set(column.is_nan(), None)  # as pandas writes a missing id
        if not ((column == column.floor()) & (column.abs() < 2**53)).all():
            raise refused
        return column.cast(pl.Int64).cast(pl.String)
    text = column.cast(pl.String)
    numbers = text.drop_nulls()
    if numbers.str.contains(r"^-?\d+(\.0*)?$").all():  # as pandas writes whole numbers beside a missing one
        return text.str.replace(r"\.0*$", "")
    if isinstance(column.dtype, pl.Decimal):
        raise refused
    return text


def read_lines(path: Path, separator: str, columns: Sequence[str]) -> pl.LazyFrame:
    """Lines without header and quotes, split at `separator`: a string column for each field, and `LINE`.

    All fields of a line are null where their number is another or a byte is not UTF-8.
    """
    check_readable(path)
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    try:
        lines = pl.scan_csv(
            path,
            separator=_NEVER,
            has_header=False,
            quote_char=None,
            new_columns=["text"],
            infer_schema=False,
            encoding="utf8-lossy",
            row_index_name=LINE,
            row_index_offset=1,
            glob=False,
        )
        columns_found = len(lines.collect_schema())
    except BROKEN as error:
        raise _unreadable(path, error) from error
    if columns_found > 2:
        raise UserError(f"{path} cannot be read: {_ODD}")
    text = pl.col("text").str.strip_suffix("\r")
    fields = pl.when(~text.str.contains("\ufffd", literal=True)).then(text.str.split(separator))
    right = pl.when(pl.col("fields").list.len() == len(columns)).then(pl.col("fields"))
    parts = (right.list.get(place, null_on_oob=True).alias(name) for place, name in enumerate(columns))
    return lines.select(LINE, fields=fields).select(LINE, *parts)


def collect(path: Path | str, frame: pl.LazyFrame, needed: Sequence[str]) -> pl.DataFrame:
    """The rows of `frame` that have all `needed` values, without its column `LINE`; the others are counted.

    `path` is what messages call the file.
    """
    try:
        whole = frame.collect(engine="streaming")
    except BROKEN as error:
        raise _unreadable(path, error) from error
    return whole_rows(path, whole, needed)


def _unreadable(path: Path | str, error: BaseException) -> UserError:
    odd = any(word in str(error) for word in ("fields", "columns"))
    return UserError(f"{path} cannot be read: {_ODD if odd else first_line(error)}")


def whole_rows(path: Path | str, frame: pl.DataFrame, needed: Sequence[str]) -> pl.DataFrame:
    """The rows that have all `needed` values, none of them an empty string; the others are counted in one line."""
    wanted = [pl.col(name).is_not_null() for name in needed]
    wanted += [pl.col(name) != "" for name in needed if frame.schema[name] == pl.String]
    fine = pl.all_horizontal(wanted)
    kept = frame.filter(fine)
    bad = frame.height - kept.height
    if bad:
        first = frame.filter(~fine)[LINE][0]
        say(f"{path}: {bad:,} rows skipped that are incomplete or malformed, the first in line {first:,}")
    return kept.drop(LINE)


def distinct(path: Path, items: pl.DataFrame) -> pl.DataFrame:
    """The same. Raises UserError for an item that appears twice."""
    twice = items.filter(~pl.col("item").is_first_distinct())
    if twice.height:
        raise UserError(f"{path}: item {twice['item'][0]!r} appears twice in the file; remove one")
    return items


def read_json_lines(path: Path, fields: Mapping[str, tuple[str, Callable[[Any], Any]]]) -> pl.DataFrame:
    """A column for each of `fields`, (name in the file, function of the value), and `LINE`.

    It is null where there is no value, where the function raises ValueError, and in lines that are not JSON objects.
    """
    kinds: dict[Callable[[Any], Any], Any] = {number: pl.Float64, whole_number: pl.Int64}
    schema = {LINE: pl.Int64} | {name: kinds.get(make, pl.String) for name, (_, make) in fields.items()}
    frames = [pl.DataFrame(rows, schema, orient="row") for rows in _chunks(enumerate(lines_of(path), 1), fields)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def _chunks(lines: Iterator[tuple[int, bytes]], fields: Mapping[str, tuple[str, Callable]]) -> Iterator[list[tuple]]:
    """(line, value of each field) some lines at a time; of what else stands in a line nothing is kept."""
    rows: list[tuple] = []
    for place, line in lines:
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        row = found if isinstance(found, dict) else {}
        rows.append((place, *(_try(make, row.get(key)) for key, make in fields.values())))
        if len(rows) == _CHUNK:
            yield rows
            rows = []
    if rows:
        yield rows


def _try(make: Callable[[Any], Any], value: Any) -> Any:
    if value is None:
        return None
    try:
        return make(value)
    except (ValueError, TypeError, OverflowError):
        return None


def as_text(value: Any) -> str:
    """A string, or a number as one, 1.0 like 1. Raises ValueError for anything else, and for what is not Unicode."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    if isinstance(value, float):
        value = number(value)
        value = int(value) if value.is_integer() else value
    text = value if isinstance(value, str) else repr(value)
    text.encode()
    return text


def as_id(value: Any) -> str:
    """The same, but no number with a fraction."""
    text = as_text(value)
    if isinstance(value, float) and "." in text:
        raise ValueError
    return text


def number(value: Any) -> float:
    """Raises ValueError for what is not a finite number."""
    found = float(value)
    if isinstance(value, bool) or not math.isfinite(found):
        raise ValueError
    return found


def whole_number(value: Any) -> int:
    """Raises ValueError for what is not a number that 64 bits hold."""
    found = int(value)
    if isinstance(value, bool) or abs(found) >= 1 << 62:
        raise ValueError
    return found


def times(path: Path, column: pl.Series) -> tuple[pl.Series, Cut, Callable[[Any], str | int | float | None]]:
    """Times as numbers, null where one cannot be read; how a cut becomes such a number, and the other way round.

    Numbers stay as they are, in whatever unit. Dates and times in ISO 8601 become microseconds; without a zone they
    count as UTC. A column of strings holds whichever of both more of them are.
    """
    if isinstance(column.dtype, pl.Decimal):
        column = column.cast(pl.Float64)
    if column.dtype.is_float():
        column = column.set(~column.is_finite(), None)
    if column.dtype.is_numeric():
        return column, number_cut(path), as_number
    if column.dtype.is_temporal():
        return _microseconds(column), date_cut(path), as_date
    whole = column.cast(pl.Int64, strict=False)
    real = column.cast(pl.Float64, strict=False)
    real = real.set(~real.is_finite(), None)
    dates = _parse_dates(column)
    if dates.null_count() < real.null_count():
        return dates, date_cut(path), as_date
    return whole if whole.null_count() == real.null_count() else real, number_cut(path), as_number


def _parse_dates(column: pl.Series) -> pl.Series:
    text = pl.col("time").str.replace(r"[Zz]$", "+00:00")
    plain = [text.str.to_datetime(form, time_unit="us", strict=False) for form in _DATES]
    zoned = [
        text.str.to_datetime(form, time_unit="us", strict=False, time_zone="UTC").dt.replace_time_zone(None)
        for form in _ZONED
    ]
    return column.to_frame("time").select(pl.coalesce(*plain, *zoned).dt.timestamp("us"))["time"]


def _microseconds(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return column.cast(pl.Datetime("us")).dt.timestamp("us")


def number_cut(path: Path) -> Cut:
    """Cuts of times that are numbers."""

    def cut(value: str | int | float) -> int | float:
        try:
            return value if isinstance(value, int) else float(value)
        except (ValueError, OverflowError) as error:
            raise UserError(f"config.data.time: {value!r} is not a number, and the times in {path} are") from error

    return cut


def as_number(time: int | float) -> int | float:
    """Times that are numbers are what cuts are."""
    return time


def as_date(time: int) -> str | None:
    """ISO 8601 in UTC of microseconds since 1970: what `date_cut` takes back; None of years that it does not know."""
    try:
        return (datetime(1970, 1, 1) + timedelta(microseconds=time)).isoformat()
    except OverflowError:
        return None


def date_cut(path: Path) -> Cut:
    """Cuts of times that are dates: microseconds."""

    def cut(value: str | int | float) -> int | float:
        found = _parse_dates(pl.Series([str(value)]))[0]
        if found is None:
            raise UserError(f"config.data.time: {value!r} is not a date in ISO 8601, and the times in {path} are")
        return found

    return cut


def _check_rows(path: Path) -> None:
    """Raises UserError for a Parquet file that claims more rows than its bytes can hold."""
    rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    if rows > max(SMALL, EXPANSION * path.stat().st_size):
        raise UserError(
            f"{path} claims {rows:,} rows, more than {EXPANSION} for each of its bytes, which no table does"
        )


def _broken_row(path: Path, separator: str) -> str:
    """Where Python's own reader finds the fault, as ", line n"; nothing where it finds none."""
    line = begun = width = 0

    def decoded(file: Iterable[bytes]) -> Iterator[str]:
        nonlocal line
        for raw in file:
            line += 1
            yield raw.decode()

    try:
        with opened(path) as file:
            for row in csv.reader(decoded(file), delimiter=separator, strict=True):
                width = width or len(row)
                if len(row) > width:
                    break
                begun = line
            else:
                return ""
    except UnicodeDecodeError:
        return f", line {line}"
    except (csv.Error, OSError, EOFError, zlib.error):
        pass
    return f", line {begun + 1}"
