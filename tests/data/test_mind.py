"""MIND, from the release and from the paper's tables: what is read, what is skipped and said."""

from datetime import datetime

import numpy as np
import pytest

import pad_jax.data.readers as readers
from pad_jax.data.readers import READERS
from pad_jax.errors import UserError
from tests.support.data import default_config, sequences
from tests.support.raw_data import mind, mind_by_hand
from tests.support.readers import mind_config


@pytest.mark.parametrize("zipped", [False, True])
def test_raw_mind_is_what_plain_python_reads(tmp_path, zipped, capsys):
    mind(tmp_path / "plain")
    if zipped:
        mind(tmp_path / "zip", zipped=True)
    data = readers.load(mind_config(tmp_path / ("zip" if zipped else "plain")))
    news, events = mind_by_hand(tmp_path / "plain")
    expected = {user: items[-23:] for user, items in sorted(events.items()) if len(items) >= 5}
    assert len(expected) > 20
    assert sequences(data) == expected
    assert list(data.user_ids) == list(expected)
    met = {item for items in expected.values() for item in items}
    assert list(data.item_ids) == [item for item in news if item in met]
    out = capsys.readouterr().out
    assert "news.tsv: 1 rows skipped" in out
    assert "of items that are not in the catalogue" in data.account
    assert "not comparable" in data.note
    assert any('"old"' in title for title in data.titles)


def test_mind_split_by_time(tmp_path):
    """Histories have no times and lie before their impression; of users first seen after the cut they are left out."""
    mind(tmp_path)
    cut = "2019-11-10T12:00"
    data = readers.load(mind_config(tmp_path, time=(cut, "2019-11-14")))
    _, before = mind_by_hand(tmp_path, before=datetime.fromisoformat(cut))
    trained = np.split(data.events, np.stack([data.starts[:-1], data.cuts.train_end], axis=1).reshape(-1))[1::2]
    for user, items in zip(data.user_ids, trained, strict=True):
        assert [data.item_ids[i - 1] for i in items] == before.get(user, [])[-21:]
    assert set(data.user_ids) - set(before)


def test_prepared_tables_of_mind(tmp_path):
    (tmp_path / "mind_users.tsv").write_text("U2\tN1 N2 N3 N1 N9 N2\nU1\tN3 N3 N1 N2 N2\nbroken line\nU3\tN1 N2\n")
    (tmp_path / "mind_items.tsv").write_text('N2\tA "quoted" title\nN1\tOne\nN4\tNever met\nN3\tThree\n')
    data = readers.load(mind_config(tmp_path))
    assert list(data.item_ids) == ["N2", "N1", "N3"]
    assert sequences(data) == {"U1": ["N3", "N3", "N1", "N2", "N2"], "U2": ["N1", "N2", "N3", "N1", "N2"]}
    assert "known: 79707; 41, 127" in readers.summary(data, mind_config(tmp_path))
    with pytest.raises(UserError, match=r"needs the times of events, and mind has none"):
        readers.load(mind_config(tmp_path, time=(1, 2)))


def test_mind_refuses_both_forms_and_bad_archives(tmp_path):
    mind(tmp_path)
    (tmp_path / "x_users.tsv").write_text("U\tN1\n")
    with pytest.raises(UserError, match="must hold either"):
        readers.load(mind_config(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.zip").write_bytes(b"PK no archive")
    with pytest.raises(UserError, match=r"a\.zip cannot be unpacked"):
        readers.load(mind_config(other))


def test_parts_that_are_the_same_are_refused(tmp_path):
    """An archive beside its own folder."""
    mind(tmp_path, parts=("train",), zipped=True)
    mind(tmp_path, parts=("train",))
    with pytest.raises(UserError, match=r"MINDsmall_train.zip and .*train.*hold the same impressions"):
        readers.load(mind_config(tmp_path))


@pytest.mark.parametrize("line", [0, 1])
def test_a_byte_that_no_text_has(tmp_path, line):
    lines = ["N1\tOne\n", "N2\tTwo\n"]
    lines[line] = lines[line].replace("\t", "\tT\x01")
    (tmp_path / "users.tsv").write_text("U\tN1 N2 N1 N2 N1\n")
    (tmp_path / "items.tsv").write_text("".join(lines))
    with pytest.raises(UserError, match=r"items\.tsv cannot be read: a line holds the byte 1"):
        readers.load(mind_config(tmp_path))


def test_mind_without_files_says_what_it_needs():
    with pytest.raises(UserError, match="must hold either"):
        READERS["mind"].load(default_config("mind"))
