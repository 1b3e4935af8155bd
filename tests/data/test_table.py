"""Own tables: any format gives the same, and what is broken says where."""

import csv
import gzip
import json
import re
from datetime import time, timedelta

import numpy as np
import polars as pl
import pytest

import pad_jax.data.readers as readers
from pad_jax.cli import parse
from pad_jax.data.files import usual_folder
from pad_jax.data.table import read_catalogue
from pad_jax.errors import UserError
from tests.support.data import sequences
from tests.support.readers import EVENTS, ITEMS, table_config


@pytest.mark.parametrize("form", ["csv", "csv.gz", "tsv", "parquet", "jsonl", "jsonl.gz"])
def test_any_table_gives_the_same(shop, form):
    """Rows in any order, times as numbers or dates, ratings or none: the format changes nothing."""
    folder = shop()
    expected = readers.load(table_config(folder))
    rows = list(csv.DictReader(EVENTS.splitlines()))
    random = np.random.default_rng(0)
    rows = [rows[n] for n in random.permutation(len(rows))]
    extra = {"when": [f"2024-01-01T00:{int(r['time']) // 60:02d}:{int(r['time']) % 60:02d}Z" for r in rows]}
    frame = pl.DataFrame({"who": [r["user"] for r in rows], "item": [r["item"] for r in rows], **extra})
    frame = pl.concat([frame.with_columns(stars=4.5), frame.with_columns(stars=3.0)])
    path = folder / f"other.{form}"
    if form == "parquet":
        frame.with_columns(pl.col("when").str.to_datetime(time_zone="UTC")).write_parquet(path)
    else:
        text = frame.write_ndjson() if "jsonl" in form else frame.write_csv(separator="\t" if form == "tsv" else ",")
        path.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    config = table_config(folder, events=str(path), user="who", time="when", rating="stars", text="{title}")
    assert readers.load(config).fingerprint == expected.fingerprint


def test_table_text_and_new_items(shop):
    data = readers.load(table_config(shop(), text="{title} by {brand}"))
    assert data.items == 9
    assert (data.titles[1], data.texts[1]) == ("Thing, 1", "Thing, 1 by B1")
    assert (data.counts[8:] == 0).all()  # no event names i7 and i8, and they are candidates


def test_without_a_time_column_events_stand_in_file_order(shop):
    data = readers.load(table_config(shop(), time=""))
    assert sequences(data)["u1"] == ["i1", "i2", "i3", "i4", "i5", "i6"]
    with pytest.raises(UserError, match="needs the times of events"):
        readers.load(table_config(shop(), time="", data={"time": (1, 2)}))


@pytest.mark.parametrize(
    ("events", "items", "message"),
    [
        (EVENTS.replace("user", "person", 1), ITEMS, r'events.csv: unable to find column "user".*--config.table'),
        (EVENTS + "u9,i1\nu9,i2,3,4\n", ITEMS, r"events.csv, line 27 cannot be read"),
        (EVENTS + 'u9,"i1,3\nu9,i2,4\n', ITEMS, r"events.csv, line 26 cannot be read"),
        (EVENTS.encode() + b"u\xff,i1,3\n", ITEMS, r"events.csv, line 26 cannot be read"),
        ("", ITEMS, r"events.csv cannot be read"),
        ("user,item,time\n", ITEMS, r"events.csv has no events"),
        (re.sub(r",i(\d)", r",j\1", EVENTS), ITEMS, r"no user has 5 events of items in the catalogue"),
        (EVENTS, ITEMS + "i3,again,B\n", r"items.csv: item 'i3' appears twice in the file"),
        (EVENTS, "item,title,brand\n", r"items.csv has no items"),
        (EVENTS, ITEMS.replace("title", "name"), r'items.csv: unable to find column "title"'),
    ],
)
def test_broken_tables_say_where(shop, events, items, message):
    with pytest.raises(UserError, match=message) as error:
        readers.load(table_config(shop(events, items)))
    assert "\n" not in str(error.value)


def test_rows_that_say_too_little_are_skipped_and_counted(shop, capsys):
    bad = "u1,,5\n,i1,5\nu1,i1,never\nu1,i1,\nu1\n"
    folder = shop(EVENTS + bad, ITEMS + "i20,,\n,nameless,B\n")
    data = readers.load(table_config(folder))
    out = capsys.readouterr().out
    assert "events.csv: 5 rows skipped that are incomplete or malformed, the first in line 26" in out
    assert "items.csv: 1 rows skipped" in out  # the one without an id
    assert len(data.events) == 24
    assert (data.items, data.titles[-1]) == (10, "")
    assert data.account == "29 events read, 24 kept; not used: 5 incomplete or malformed"


@pytest.mark.parametrize(
    ("text", "full", "no_brand", "no_title", "nothing_but_year"),
    [
        ("{title} by {brand}", "T by B", "T", "B", ""),
        ("{title} by {brand}, {year}", "T by B, 1999", "T, 1999", "B, 1999", "1999"),
        ("{title} ({brand}), {year}.", "T (B), 1999.", "T, 1999.", "(B), 1999.", "1999."),
        ("{title} ({brand}, {year})", "T (B, 1999)", "T (1999)", "(B, 1999)", "(1999)"),
        ("{title} (by {brand})", "T (by B)", "T", "(by B)", ""),
        ('"{title}" by {brand}', '"T" by B', '"T"', "B", ""),
        ("{brand}: {title}", "B: T", "T", "B", ""),
        ("Film {{x}}: {title}, {{y}} {brand}", "Film {x}: T, {y} B", "Film {x}: T", "Film {x}: B", ""),
        ("Title: {title}. Brand: {brand}", "Title: T. Brand: B", "Title: T", "Brand: B", ""),
        ("A film: {title} [{year}] {brand}", "A film: T [1999] B", "A film: T [1999]", "[1999] B", "[1999]"),
    ],
)
def test_a_template_leaves_nothing_of_what_is_missing(shop, text, full, no_brand, no_title, nothing_but_year):
    rows = ["a,T,B,1999", "b,T,,1999", "c,,B,1999", "d,,,1999", "e,,,"]
    folder = shop(items="item,title,brand,year\n" + "\n".join(rows) + "\n")
    found = read_catalogue(folder / "items.csv", table_config(folder, text=text).table)
    assert found["text"].to_list() == [full, no_brand, no_title, nothing_but_year, ""]
    assert found["title"].to_list() == ["T", "T", "", "", ""]


def test_titles_are_what_lists_show(shop):
    named = readers.load(table_config(shop(), title="brand"))
    assert (named.titles[0], named.texts[0]) == ("B0", "Thing, 0")
    first = readers.load(table_config(shop(), text="{brand}, {item}"))
    assert (first.titles[0], first.texts[0]) == ("B0", "B0, i0")


def test_ids_may_be_numbers(shop, tmp_path):
    """1, 1.0 and "1" are one id, whatever a file makes of it; a missing one costs its row, 1.5 is none."""
    folder = shop()
    numbers = [n % 7 for n in range(24)]
    frame = pl.DataFrame({"user": [n // 6 for n in range(24)], "item": numbers, "time": range(24)})
    pl.DataFrame({"item": range(9), "title": [f"T{n}" for n in range(9)]}).write_parquet(folder / "i.parquet")
    expected = None
    for form, change in {
        "a.parquet": frame,
        "b.parquet": frame.with_columns(pl.col("item", "user").cast(pl.Float64)),
        "c.jsonl": frame.with_columns(pl.col("item").cast(pl.Float64), pl.col("user").cast(pl.String)),
        "d.csv": frame,
    }.items():
        path = folder / form
        {"parquet": change.write_parquet, "jsonl": change.write_ndjson, "csv": change.write_csv}[form[2:]](path)
        config = table_config(folder, events=str(path), catalogue=str(folder / "i.parquet"))
        expected = expected or readers.load(config).fingerprint
        assert readers.load(config).fingerprint == expected, form
    broken = pl.concat([frame.cast({"item": pl.Float64}), pl.DataFrame({"user": [0], "item": [np.nan], "time": [1]})])
    broken.write_parquet(folder / "e.parquet")
    config = table_config(folder, events=str(folder / "e.parquet"), catalogue=str(folder / "i.parquet"))
    assert readers.load(config).fingerprint == expected
    broken.with_columns(pl.col("item") + 0.5).write_parquet(folder / "e.parquet")
    with pytest.raises(UserError, match=r"column 'item' holds ids, which must be text or whole numbers"):
        readers.load(config)


@pytest.mark.parametrize("text", ["title", "{title", "{}", "{title!r}", "{title:>9}", "{brand!s:x}"])
def test_templates_that_are_none(shop, text):
    with pytest.raises(UserError, match=r"config\.table\.text"):
        readers.load(table_config(shop(), text=text))


@pytest.mark.parametrize("column", ["user", "item", "time", "stars", "title"])
@pytest.mark.parametrize("values", [[[1]], [b"a"], [True], [{"a": 1}], [timedelta(1)], [time(1)]])
def test_parquet_columns_of_other_kinds(shop, column, values):
    folder = shop()
    columns = {"user": ["u"], "item": ["i"], "time": [1], "stars": [5.0], "title": ["T"]}
    pl.DataFrame(columns | {column: values}, strict=False).write_parquet(folder / "e.parquet")
    config = table_config(folder, events=str(folder / "e.parquet"), rating="stars")
    if column == "title":
        config = table_config(folder, catalogue=str(folder / "e.parquet"))
    with pytest.raises(UserError, match=f"column '{column}' holds"):
        readers.load(config)


def test_one_odd_time_costs_one_row(shop, capsys):
    data = readers.load(table_config(shop(EVENTS.replace("time\n", "time\nu0,i1,unknown\n"))))
    assert len(data.events) == 24
    assert "1 rows skipped" in capsys.readouterr().out
    dates = re.sub(r",(\d+)\n", lambda m: f",2024-01-01T00:{int(m[1]) // 60:02d}:{int(m[1]) % 60:02d}\n", EVENTS)
    assert len(readers.load(table_config(shop(dates.replace("time\n", "time\nu0,i1,7\n")))).events) == 24


def test_json_values_of_other_kinds_are_skipped(tmp_path, capsys):
    rows = [{"user": 7, "item": n % 4, "time": n} for n in range(6)]
    bad = [{"user": True, "item": 1, "time": 1}, {"user": [1], "item": 1, "time": 1}, {"item": 1, "time": 2}, [1], "x"]
    (tmp_path / "events.jsonl").write_text("\n".join(json.dumps(row) for row in [*bad, *rows]) + "\nno json\n")
    (tmp_path / "items.csv").write_text("item,title\n0,A\n1,B\n2,C\n3,D\n")
    data = readers.load(table_config(tmp_path, events=str(tmp_path / "events.jsonl")))
    assert sequences(data) == {"7": ["0", "1", "2", "3", "0", "1"]}
    assert "6 rows skipped that are incomplete or malformed, the first in line 1" in capsys.readouterr().out


def test_ids_as_people_export_them(shop):
    """Numbers of many digits stay apart; CSV of a column with gaps writes 7.0 for 7; 007 is no number."""
    folder = shop()
    big = [10**18 + n for n in range(7)]
    events = {"user": [1] * 7, "item": big, "time": list(range(7))}
    catalogue = {"item": big, "title": [f"T{n}" for n in range(7)]}
    for name, columns in (("e", events), ("i", catalogue)):
        pl.DataFrame(columns).with_columns(pl.col("item").cast(pl.Decimal(38, 0))).write_parquet(
            folder / f"{name}.parquet"
        )
    config = table_config(folder, events=str(folder / "e.parquet"), catalogue=str(folder / "i.parquet"))
    assert sequences(readers.load(config)) == {"1": [str(n) for n in big]}
    floats = shop("user,item,time\n" + "".join(f"7.0,{n}.0,{n}\n" for n in range(1, 7)), ITEMS.replace("\ni", "\n"))
    assert sequences(readers.load(table_config(floats))) == {"7": ["1", "2", "3", "4", "5", "6"]}
    text = shop("user,item,time\n" + "".join(f"a,00{n},{n}\n" for n in range(1, 7)), ITEMS.replace("\ni", "\n00"))
    assert sequences(readers.load(table_config(text))) == {"a": [f"00{n}" for n in range(1, 7)]}


def test_files_stand_in_the_data_folder(shop):
    """Relative names are of files in `data.path`; others stay what they are."""
    folder = shop()
    expected = readers.load(table_config(folder)).fingerprint
    names = {"events": "events.csv", "catalogue": "items.csv"}
    assert readers.load(table_config(folder, data={"path": str(folder)}, **names)).fingerprint == expected
    assert readers.load(table_config(folder, data={"path": "/elsewhere"})).fingerprint == expected
    with pytest.raises(UserError, match=r"/elsewhere/events\.csv does not exist; set --config\.data\.path"):
        readers.load(table_config(folder, data={"path": "/elsewhere"}, **names))


@pytest.mark.parametrize(
    ("name", "folder", "sizes", "targets"),
    [
        ("beauty", "amazon_beauty", (22_363, 12_101, 198_502), (22_363, 22_363)),
        ("movietweetings", "movietweetings", (16_554, 10_506, 100_000), (2_732, 2_897)),
        ("retail", "online_retail", (4_335, 3_659, 266_226), (943, 1_442)),
    ],
)
def test_datasets_of_the_trial_are_read_whole(name, folder, sizes, targets):
    """Users, items and events as published, and as many targets as the split of the protocol leaves."""
    if not (usual_folder(folder) / "events.parquet").exists():
        pytest.skip(f"needs real data: set PAD_JAX_DATA to a folder with {folder}/")
    config = parse(["main.py", f"--config={name}"]).config
    data = readers.load(config)
    assert (data.users, data.items, len(data.events)) == sizes
    assert tuple(len(data.split(split, 1).target) for split in ("valid", "test")) == targets
    assert (config.dataset, config.recipe) == (name, "best")
