"""Data frames of polars and pandas as tables."""

import datetime

import polars as pl
import pytest

from pad_jax.data.frames import as_file, frame_of
from pad_jax.data.table import TableSettings, read_events
from pad_jax.errors import UserError


def test_pandas_frames_are_those_of_polars():
    pandas = pytest.importorskip("pandas")
    numpy = pytest.importorskip("numpy")
    zone = datetime.timezone(datetime.timedelta(hours=2))
    days = [datetime.datetime(2026, 1, day) for day in (1, 2, 3)]
    found = frame_of(
        pandas.DataFrame(
            {
                "text": ["a", None, "c"],
                "object": pandas.Series(["x", float("nan"), "z"], dtype=object),
                "kind": pandas.Categorical(["u", "v", "u"]),
                "whole": [1, 2, 3],
                "nullable": pandas.array([1, None, 3], dtype="Int64"),
                "real": [1.5, numpy.nan, 2.0],
                "time": pandas.to_datetime(days),
                "zoned": pandas.to_datetime([day.replace(tzinfo=zone) for day in days]),
                "unused": [object()] * 3,
            }
        ).set_axis([7, 8, 9]),
        ["text", "object", "kind", "whole", "nullable", "real", "time", "zoned", "text"],
        "events",
    )
    assert found["text"].to_list() == ["a", None, "c"]
    assert found["object"].to_list() == ["x", None, "z"]
    assert found["kind"].to_list() == ["u", "v", "u"]
    assert found["whole"].to_list() == [1, 2, 3]
    assert found["nullable"].to_list() == [1, None, 3]
    assert found["real"].to_list() == [1.5, None, 2.0]
    assert found["time"].to_list() == days
    assert [time.timestamp() for time in found["zoned"]] == [day.replace(tzinfo=zone).timestamp() for day in days]
    assert found.columns == ["text", "object", "kind", "whole", "nullable", "real", "time", "zoned"]


def test_what_is_no_table_is_one_line(tmp_path):
    frame = pl.DataFrame({"user": ["a"], "item": [1], "odd": [[1]]})
    assert frame_of(frame.lazy(), ["item"], "events").equals(frame.select("item"))
    for table, columns, message in (
        ([1, 2], ["user"], "events must be a data frame or the path of a file, not list"),
        (frame, ["user", "when"], "events: there is no column 'when' among user, item, odd; name the columns"),
        (frame, ["odd"], r"events: column 'odd' holds List\(Int64\); it must hold text, numbers or dates"),
    ):
        with pytest.raises(UserError, match=message):
            frame_of(table, columns, "events")
    pandas = pytest.importorskip("pandas")
    with pytest.raises(UserError, match="events cannot be read"):
        frame_of(pandas.DataFrame({"user": pandas.Series(["a", 1], dtype=object)}), ["user"], "events")


def test_equal_frames_are_one_file():
    frame = pl.DataFrame({"user": ["a"], "item": ["b"], "time": [1]})
    path = as_file(frame, ["user", "item"], "events", "shop")
    assert path == as_file(frame.with_columns(time=2), ["user", "item"], "events", "shop")
    assert pl.read_parquet(path).equals(frame.select("user", "item"))
    assert path != as_file(frame.with_columns(user=pl.lit("c")), ["user", "item"], "events", "shop")
    assert as_file(str(path), [], "events", "shop") == path


def test_events_of_a_frame_are_those_of_its_file(tmp_path):
    frame = pl.DataFrame({"user": [1, 2, None], "item": ["x", "y", "z"], "time": ["2026-01-01", "2026-01-02", "never"]})
    frame.write_parquet(tmp_path / "e.parquet")
    by_file, by_frame = (
        read_events(tmp_path / "e.parquet", TableSettings()),
        read_events(tmp_path / "events", TableSettings(), frame),
    )
    assert by_file.frame.equals(by_frame.frame)
    assert by_file.out == by_frame.out == ("1 incomplete or malformed",)
