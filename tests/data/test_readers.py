"""Whatever the raw files hold, a reader returns a dataset or says in one line why not."""

import gzip

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pad_jax.data.readers as readers
from pad_jax.data.dataset import from_sequences
from tests.support.data import default_config
from tests.support.raw_data import amazon, mind
from tests.support.readers import EVENTS, ITEMS, in_folder, mind_config, readable, table_config

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
    readable(lambda: readers.load(mind_config(folder)))


@FUZZ
@given(st.data())
def test_fuzzed_prepared_mind(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mind")
    (folder / "users.tsv").write_bytes(data.draw(damaged(b"U2\tN1 N2 N3 N1 N2 N2\nU1\tN3 N3 N1 N2 N2\nU3\tN1 N2\n")))
    (folder / "items.tsv").write_bytes(data.draw(damaged(b"N2\tTwo\nN1\tOne\nN3\tThree\n")))
    readable(lambda: readers.load(mind_config(folder)))


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
    readable(lambda: readers.load(in_folder("electronics", folder)))


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
    readable(lambda: readers.load(config))


@pytest.mark.parametrize(("events", "length"), [(9, 20), (24, 50), (400, 50)])
def test_the_length_is_chosen_from_the_data(events, length, capsys):
    items = [str(n) for n in range(500)]
    users = [list(range(1, 8)), *([list(range(1, events + 3))] * 3)]
    data = from_sequences("made", items, items, ["a", "b", "c", "d"], users)
    config = default_config("made", {"data.length": 0})
    assert readers.settled(config, data).data.length == length
    assert f"data.length {length}, chosen from the data" in capsys.readouterr().out
    fixed = default_config("made", {"data.length": 7})
    assert readers.settled(fixed, data) is fixed


def test_a_summary_counts_targets_by_how_often_training_met_them(make_config):
    """Item 1 is met 7 times, 2 once, 3 to 5 never; a target of validation is no training event."""
    sequences = [[1, 1, 1, 2, 1], [1, 1, 1, 1, 3], [1, 2, 4, 5]]
    data = from_sequences("shop", list("abcde"), list("abcde"), list("xyz"), sequences)
    lines = readers.summary(data, make_config("best")).splitlines()
    assert "training events: 8; items: 0 warm, 1 median, 1 cold, 3 unseen" in lines
    assert "valid targets: 3; 0 warm, 1 median, 1 cold, 1 unseen" in lines
    assert "test targets: 3; 0 warm, 1 median, 0 cold, 2 unseen" in lines
