"""Data frames of polars, pandas and others in place of the files of the reader `table`."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pad_jax.data import prepared
from pad_jax.data.files import first_line
from pad_jax.data.tables import plain
from pad_jax.errors import UserError
from pad_jax.files import write_atomically

#: A data frame of polars, of pandas, or of whatever has `__arrow_c_stream__`; or the path of a file that `read_table`
#: takes.
Table = Any


def frame_of(table: Any, columns: Sequence[str], name: str) -> pl.DataFrame:
    """These columns of a data frame, as polars has them; missing values are null.

    pandas is asked for its values by duck typing: it need not be installed, nor pyarrow. `name` is what messages call
    the table. Raises UserError for what is no data frame, for a column that it lacks, and for values that are neither
    text, numbers nor dates.
    """
    columns = list(dict.fromkeys(columns))
    try:
        if isinstance(table, pl.LazyFrame):
            table = table.collect()
        pandas = hasattr(table, "isna") and hasattr(table, "columns")
        if not pandas and not isinstance(table, pl.DataFrame):
            if not hasattr(table, "__arrow_c_stream__"):
                raise UserError(f"{name} must be a data frame or the path of a file, not {type(table).__name__}")
            table = pl.DataFrame(table)
        lacking = [column for column in columns if column not in list(table.columns)]
        if lacking:
            raise UserError(
                f"{name}: there is no column {lacking[0]!r} among {', '.join(map(str, table.columns))}; name the "
                "columns with the settings of `table`"
            )
        if pandas:
            table = pl.DataFrame([_of_pandas(table[column], column) for column in columns])
        return plain(Path(name), table.select(columns))
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{name} cannot be read: {first_line(error)}") from error


def _of_pandas(column: Any, name: str) -> pl.Series:
    gone = np.asarray(column.isna(), bool)
    values = column.to_numpy(dtype=object) if gone.any() else column.to_numpy()
    if values.dtype != object:
        return pl.Series(name, values)
    return pl.Series(name, [None if lacks else value for value, lacks in zip(values.tolist(), gone, strict=True)])


def as_file(table: Any, columns: Sequence[str], name: str, dataset: str) -> Path:
    """The path of a table: its own, or of a data frame that of the Parquet file it is written to.

    That is runs/<dataset>/tables/<name>-<hash of the contents>.parquet, so that equal frames are one file, from which
    every job can go on. Raises UserError as `frame_of`.
    """
    if isinstance(table, str | Path):
        return Path(table)
    content = io.BytesIO()
    frame_of(table, columns, name).write_parquet(content)
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:16]
    path = prepared.ROOT / dataset / "tables" / f"{name}-{digest}.parquet"
    if not path.exists():
        write_atomically(path, content.getvalue())
    return path
