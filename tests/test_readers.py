"""MIND, Amazon and own tables: what is read, what is skipped and said, and that nothing else ever happens."""

import csv
import gzip
import html
import json
import re
import shutil
from dataclasses import replace
from datetime import datetime, time, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pad_jax import data as datasets
from pad_jax.config import Config, DataConfig, TableConfig
from pad_jax.data import prepared
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from tests.raw_data import amazon, mind, mind_by_hand


def sequences(data: Dataset) -> dict[str, list[str]]:
    """Each user's item ids."""
    parts = np.split(data.events, data.starts[1:-1])
    return {u: [data.item_ids[i - 1] for i in part] for u, part in zip(data.user_ids, parts, strict=True)}


def mind_config(folder, **fields) -> Config:
    return Config("mind", data=DataConfig(path=str(folder), **fields))


def table_config(folder, data=None, **fields) -> Config:
    paths = {"events": str(folder / "events.csv"), "catalogue": str(folder / "items.csv")}
    return Config("shop", data=DataConfig(reader="table", **(data or {})), table=TableConfig(**paths | fields))


EVENTS = "user,item,time\n" + "".join(f"u{u},i{(u + n) % 7},{100 * n + u}\n" for u in range(4) for n in range(6))
ITEMS = "item,title,brand\n" + "".join(f'i{n},"Thing, {n}",B{n % 2}\n' for n in range(9))


@pytest.fixture
def shop(tmp_path):
    def write(events=EVENTS, items=ITEMS):
        (tmp_path / "events.csv").write_bytes(events if isinstance(events, bytes) else events.encode())
        (tmp_path / "items.csv").write_bytes(items if isinstance(items, bytes) else items.encode())
        return tmp_path

    return write


@pytest.mark.parametrize("zipped", [False, True])
def test_raw_mind_is_what_plain_python_reads(tmp_path, zipped, capsys):
    mind(tmp_path / "plain")
    if zipped:
        mind(tmp_path / "zip", zipped=True)
    data = datasets.load(mind_config(tmp_path / ("zip" if zipped else "plain")))
    news, events = mind_by_hand(tmp_path / "plain")
    expected = {user: items[-23:] for user, items in sorted(events.items()) if len(items) >= 5}
    assert len(expected) > 20
    assert sequences(data) == expected
    assert list(data.user_ids) == list(expected)
    met = {item for items in expected.values() for item in items}
    assert list(data.item_ids) == [item for item in news if item in met]
    out = capsys.readouterr().out
    assert "news.tsv: 1 rows skipped" in out
    assert "events dropped whose item is not in the catalogue" in out
    assert "not comparable" in data.note
    assert any('"old"' in title for title in data.titles)


def test_mind_split_by_time(tmp_path):
    """Histories have no times and lie before their impression; of users first seen after the cut they are left out."""
    mind(tmp_path)
    cut = "2019-11-10T12:00"
    data = datasets.load(mind_config(tmp_path, time=(cut, "2019-11-14")))
    _, before = mind_by_hand(tmp_path, before=datetime.fromisoformat(cut))
    trained = np.split(data.events, np.stack([data.starts[:-1], data.cuts.train_end], axis=1).reshape(-1))[1::2]
    for user, items in zip(data.user_ids, trained, strict=True):
        assert [data.item_ids[i - 1] for i in items] == before.get(user, [])[-21:]
    assert set(data.user_ids) - set(before)


def test_prepared_tables_of_mind(tmp_path):
    (tmp_path / "mind_users.tsv").write_text("U2\tN1 N2 N3 N1 N9 N2\nU1\tN3 N3 N1 N2 N2\nbroken line\nU3\tN1 N2\n")
    (tmp_path / "mind_items.tsv").write_text('N2\tA "quoted" title\nN1\tOne\nN4\tNever met\nN3\tThree\n')
    data = datasets.load(mind_config(tmp_path))
    assert list(data.item_ids) == ["N2", "N1", "N3"]
    assert sequences(data) == {"U1": ["N3", "N3", "N1", "N2", "N2"], "U2": ["N1", "N2", "N3", "N1", "N2"]}
    assert "known: 79707; 41, 127" in datasets.summary(data, 10)
    with pytest.raises(UserError, match=r"needs the times of events, and mind has none"):
        datasets.load(mind_config(tmp_path, time=(1, 2)))


def test_mind_refuses_both_forms_and_bad_archives(tmp_path):
    mind(tmp_path)
    (tmp_path / "x_users.tsv").write_text("U\tN1\n")
    with pytest.raises(UserError, match="must hold either"):
        datasets.load(mind_config(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.zip").write_bytes(b"PK no archive")
    with pytest.raises(UserError, match=r"a\.zip cannot be unpacked"):
        datasets.load(mind_config(other))


@pytest.mark.parametrize("reviews", [True, False])
def test_amazon_files_give_the_histories_back(tmp_path, reviews):
    random = np.random.default_rng(1)
    items = {f"B{n:09d}": f"Tea & <b>cake</b> {n}" for n in range(50)}
    histories = {f"A{u:03d}": list(random.choice(list(items), random.integers(5, 30))) for u in range(40)}
    amazon(tmp_path, histories, items, reviews)
    data = datasets.load(Config("electronics", data=DataConfig(path=str(tmp_path))))
    assert sequences(data) == {user: list(events[-23:]) for user, events in histories.items()}
    assert all(title.startswith("Tea & <b>cake</b>") for title in data.titles)
    assert list(data.item_ids) == [i for i in items if i in {x for e in histories.values() for x in e[-23:]}]


def test_prime_pantry_from_raw_ratings_is_the_authors_file(tmp_path, pantry_config):
    """A raw file in random order, with low ratings and strangers mixed in, gives users, items and events back."""
    authors = datasets.load(pantry_config)
    items = {i: html.unescape(t) for i, t in zip(authors.item_ids, authors.titles, strict=True)}
    amazon(tmp_path, sequences(authors), items, reviews=False)
    data = datasets.load(Config("electronics", data=DataConfig(path=str(tmp_path))))
    assert list(data.user_ids) == list(authors.user_ids)
    assert list(data.item_ids) == list(authors.item_ids)
    np.testing.assert_array_equal(data.events, authors.events)
    np.testing.assert_array_equal(data.starts, authors.starts)
    assert [html.unescape(t) for t in data.titles] == [html.unescape(t).strip() for t in items.values()]


@pytest.mark.parametrize("form", ["csv", "csv.gz", "tsv", "parquet", "jsonl", "jsonl.gz"])
def test_any_table_gives_the_same(shop, form):
    """Rows in any order, times as numbers or dates, ratings or none: the format changes nothing."""
    folder = shop()
    expected = datasets.load(table_config(folder))
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
    assert datasets.load(config).fingerprint == expected.fingerprint


def test_table_text_and_new_items(shop):
    data = datasets.load(table_config(shop(), text="{title} by {brand}"))
    assert data.items == 9
    assert data.titles[1] == "Thing, 1 by B1"
    assert (data.counts[8:] == 0).all()  # no event names i7 and i8, and they are candidates


def test_without_a_time_column_events_stand_in_file_order(shop):
    data = datasets.load(table_config(shop(), time=""))
    assert sequences(data)["u1"] == ["i1", "i2", "i3", "i4", "i5", "i6"]
    with pytest.raises(UserError, match="needs the times of events"):
        datasets.load(table_config(shop(), time="", data={"time": (1, 2)}))


@pytest.mark.parametrize("cuts", [(None, 1), ((1, 2), 3), (1,), (1, 2, 3), (10**400, 1)])
def test_cuts_that_are_none(tmp_path, monkeypatch, capsys, cuts):
    from pad_jax.run import main

    monkeypatch.chdir(tmp_path)
    assert main(["main.py", "--config=configs/table.py:prepare", f"--config.data.time={cuts}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_split_by_time(tmp_path):
    """Training ends before t_valid, targets are the first events from each cut on."""
    rows = {
        "a": [(1, "x"), (2, "y"), (3, "z"), (10, "x"), (11, "y"), (20, "z"), (21, "x")],
        "b": [(1, "y"), (2, "x"), (3, "y"), (4, "z"), (20, "x")],  # no validation target
        "c": [(5, "z"), (6, "z"), (7, "x"), (12, "y"), (13, "z")],  # no test target
        "d": [(10, "x"), (11, "y"), (12, "z"), (20, "y"), (22, "x")],  # no training event
    }
    lines = [f"{user},{item},{time}\n" for user, events in rows.items() for time, item in events]
    (tmp_path / "events.csv").write_text("user,item,time\n" + "".join(lines))
    (tmp_path / "items.csv").write_text("item,title\nx,X\ny,Y\nz,Z\n")
    data = datasets.load(table_config(tmp_path, data={"time": (10, 20)}))
    assert sequences(data) == {
        "a": ["x", "y", "z", "x", "y", "z", "x"],
        "b": ["y", "x", "y", "z", "x"],
        "c": ["z", "z", "x", "y", "z"],
        "d": ["x", "y", "z", "y", "x"],
    }
    assert data.counts.tolist() == [0, 3, 3, 4]
    valid, test = data.split("valid", 4), data.split("test", 4)
    assert [data.user_ids[u] for u in valid.user] == ["a", "c"]  # nothing is known of d before its target
    assert valid.target.tolist() == [1, 2]
    assert valid.inputs.tolist() == [[0, 1, 2, 3], [0, 3, 3, 1]]
    assert [data.user_ids[u] for u in test.user] == ["a", "b", "d"]
    assert test.target.tolist() == [3, 1, 2]
    assert test.inputs.tolist() == [[2, 3, 1, 2], [2, 1, 2, 3], [0, 1, 2, 3]]
    np.testing.assert_array_equal(data.train_windows(3), [[0, 1, 2, 3], [2, 1, 2, 3], [0, 3, 3, 1]])
    few = datasets.load(table_config(tmp_path, data={"time": (10, 20), "keep": 4}))
    assert sequences(few)["a"] == ["y", "z", "x", "y", "z", "x"]
    with pytest.raises(UserError, match="the earlier first"):
        datasets.load(table_config(tmp_path, data={"time": (20, 10)}))
    with pytest.raises(UserError, match=r"'soon' is no number, and the times in .*events.csv are"):
        datasets.load(table_config(tmp_path, data={"time": ("soon", 10)}))


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
        (EVENTS, ITEMS + "i3,again,B\n", r"items.csv: item 'i3' stands in the file twice"),
        (EVENTS, "item,title,brand\n", r"items.csv has no items"),
        (EVENTS, ITEMS.replace("title", "name"), r'items.csv: unable to find column "title"'),
    ],
)
def test_broken_tables_say_where(shop, events, items, message):
    with pytest.raises(UserError, match=message) as error:
        datasets.load(table_config(shop(events, items)))
    assert "\n" not in str(error.value)


def test_rows_that_say_too_little_are_skipped_and_counted(shop, capsys):
    bad = "u1,,5\n,i1,5\nu1,i1,never\nu1,i1,\nu1\n"
    folder = shop(EVENTS + bad, ITEMS + "i20,,\n,nameless,B\n")
    data = datasets.load(table_config(folder))
    out = capsys.readouterr().out
    assert "events.csv: 5 rows skipped that are incomplete or malformed, the first in line 26" in out
    assert "items.csv: 2 rows skipped" in out
    assert len(data.events) == 24


@pytest.mark.parametrize("text", ["title", "{title", "{}"])
def test_templates_that_are_none(shop, text):
    with pytest.raises(UserError, match=r"config\.table\.text"):
        datasets.load(table_config(shop(), text=text))


def test_prepared_data_are_read_again_and_never_stale(shop, capsys, monkeypatch):
    folder = shop()
    config = table_config(folder)
    first = datasets.load(config)
    (place,) = (prepared.ROOT / "shop").iterdir()
    assert pl.read_parquet(place / "items.parquet")["item"].to_list() == list(first.item_ids)
    monkeypatch.setattr(datasets.table, "read", None)  # nothing is read again
    again = datasets.load(config)
    assert again.fingerprint == first.fingerprint
    assert again.note == first.note
    monkeypatch.undo()
    monkeypatch.setattr(prepared, "ROOT", place.parent.parent)
    shop(EVENTS.replace("u3,i3,3\n", "u3,i5,3\n"))
    changed = datasets.load(config)
    assert changed.fingerprint != first.fingerprint  # the same file name and settings, other contents
    assert datasets.load(replace(config, data=replace(config.data, keep=5))).fingerprint != changed.fingerprint
    count = len(list(place.parent.iterdir()))
    code = Path(shutil.copytree(Path(prepared.__file__).parent, folder / "code"))
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "__file__", str(code / "prepared.py"))
        datasets.load(config)
        assert len(list(place.parent.iterdir())) == count  # the same code elsewhere
        (code / "tables.py").write_text("")
        datasets.load(config)
        assert len(list(place.parent.iterdir())) == count + 1
    shop()
    (place / "events.parquet").write_bytes((place / "events.parquet").read_bytes()[:40])
    assert datasets.load(config).fingerprint == first.fingerprint
    assert "is damaged and made again" in capsys.readouterr().out
    pl.DataFrame({"item_number": first.events[::-1]}).write_parquet(place / "events.parquet")
    assert datasets.load(config).fingerprint == first.fingerprint


def test_a_dataset_is_prepared_whole_or_not_at_all(shop, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pad_jax.report.results.os.replace", full)
    assert datasets.load(table_config(shop())).users == 4
    assert "will be read again next time" in capsys.readouterr().out
    assert not list((prepared.ROOT / "shop").iterdir())


def test_parts_that_are_the_same_are_refused(tmp_path):
    """An archive beside its own folder."""
    mind(tmp_path, parts=("train",), zipped=True)
    mind(tmp_path, parts=("train",))
    with pytest.raises(UserError, match=r"MINDsmall_train.zip and .*train.*hold the same impressions"):
        datasets.load(mind_config(tmp_path))


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
        datasets.load(config)


def test_one_odd_time_costs_one_row(shop, capsys):
    data = datasets.load(table_config(shop(EVENTS.replace("time\n", "time\nu0,i1,unknown\n"))))
    assert len(data.events) == 24
    assert "1 rows skipped" in capsys.readouterr().out
    dates = re.sub(r",(\d+)\n", lambda m: f",2024-01-01T00:{int(m[1]) // 60:02d}:{int(m[1]) % 60:02d}\n", EVENTS)
    assert len(datasets.load(table_config(shop(dates.replace("time\n", "time\nu0,i1,7\n")))).events) == 24


@pytest.mark.parametrize("line", [0, 1])
def test_a_byte_that_no_text_has(tmp_path, line):
    lines = ["N1\tOne\n", "N2\tTwo\n"]
    lines[line] = lines[line].replace("\t", "\tT\x01")
    (tmp_path / "users.tsv").write_text("U\tN1 N2 N1 N2 N1\n")
    (tmp_path / "items.tsv").write_text("".join(lines))
    with pytest.raises(UserError, match=r"items\.tsv cannot be read: a line holds the byte 1"):
        datasets.load(mind_config(tmp_path))


def readable(load):
    """Runs a reader: a dataset, or one line for the user."""
    message = ""
    try:
        load().split("test", 3)
    except UserError as error:
        message = str(error)
    assert "\n" not in message


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pieces = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [b"\t", b"\n", b"\r\n", b",", b'"', b"\x00", b"{", b"}", b"-1", b" ", b"\xff", b"NaN", b"\\ud800", b"1e999"]
    ),
)


@st.composite
def damaged(draw, content: bytes):
    """The content with a few pieces put in, in place of others, or cut off."""
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.integers(0, 30)))
        content = content[:begin] + draw(pieces) + content[end:]
    return content if draw(st.booleans()) else content[: draw(st.integers(0, len(content)))]


@FUZZ
@given(st.data())
def test_fuzzed_raw_mind(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mind")
    mind(folder, users=12, news=12)
    target = data.draw(st.sampled_from(sorted(folder.glob("*/*.tsv"))))
    target.write_bytes(data.draw(damaged(target.read_bytes())))
    readable(lambda: datasets.load(mind_config(folder)))


@FUZZ
@given(st.data())
def test_fuzzed_prepared_mind(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mind")
    (folder / "users.tsv").write_bytes(data.draw(damaged(b"U2\tN1 N2 N3 N1 N2 N2\nU1\tN3 N3 N1 N2 N2\nU3\tN1 N2\n")))
    (folder / "items.tsv").write_bytes(data.draw(damaged(b"N2\tTwo\nN1\tOne\nN3\tThree\n")))
    readable(lambda: datasets.load(mind_config(folder)))


@FUZZ
@given(st.data(), st.booleans())
def test_fuzzed_amazon(tmp_path_factory, data, reviews):
    folder = tmp_path_factory.mktemp("amazon")
    items = {f"B{n}": f"Tea {n}" for n in range(6)}
    amazon(folder, {f"A{u}": list(items) for u in range(3)}, items, reviews)
    target = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = target.read_bytes()
    if target.suffix == ".gz" and data.draw(st.booleans()):
        target.write_bytes(gzip.compress(data.draw(damaged(gzip.decompress(content)))))
    else:
        target.write_bytes(data.draw(damaged(content)))
    readable(lambda: datasets.load(Config("electronics", data=DataConfig(path=str(folder)))))


@FUZZ
@given(st.data(), st.sampled_from(["csv", "tsv", "jsonl", "parquet", "csv.gz"]))
def test_fuzzed_tables(tmp_path_factory, data, form):
    folder = tmp_path_factory.mktemp("table")
    paths = {}
    for name, text in (("events", EVENTS), ("items", ITEMS)):
        frame, path = pl.read_csv(text.encode(), infer_schema=False), folder / f"{name}.{form}"
        if form == "parquet":
            frame.write_parquet(path)
        elif form == "jsonl":
            path.write_text(frame.write_ndjson())
        else:
            path.write_text(frame.write_csv(separator="\t" if form == "tsv" else ","))
        paths[name] = path
    target = paths[data.draw(st.sampled_from(sorted(paths)))]
    target.write_bytes(data.draw(damaged(target.read_bytes())))
    if form == "csv.gz" and data.draw(st.booleans()):
        target.write_bytes(gzip.compress(target.read_bytes()))
    cuts = data.draw(st.sampled_from([(), (150, 300)]))
    config = table_config(
        folder, events=str(paths["events"]), catalogue=str(paths["items"]), text="{title}{brand}", data={"time": cuts}
    )
    readable(lambda: datasets.load(config))


def test_json_values_of_other_kinds_are_skipped(tmp_path, capsys):
    rows = [{"user": 7, "item": n % 4, "time": n} for n in range(6)]
    bad = [{"user": True, "item": 1, "time": 1}, {"user": [1], "item": 1, "time": 1}, {"item": 1, "time": 2}, [1], "x"]
    (tmp_path / "events.jsonl").write_text("\n".join(json.dumps(row) for row in [*bad, *rows]) + "\nno json\n")
    (tmp_path / "items.csv").write_text("item,title\n0,A\n1,B\n2,C\n3,D\n")
    data = datasets.load(table_config(tmp_path, events=str(tmp_path / "events.jsonl")))
    assert sequences(data) == {"7": ["0", "1", "2", "3", "0", "1"]}
    assert "6 rows skipped that are incomplete or malformed, the first in line 1" in capsys.readouterr().out
