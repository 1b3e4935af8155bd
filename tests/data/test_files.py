"""Where files are looked for, and what is not believed of them."""

import gzip
import re
import zipfile

import polars as pl
import pytest

from pad_jax.data import readers, tables
from pad_jax.data.files import LONGEST_LINE, data_folder, lines_of
from pad_jax.data.settings import DataSettings
from pad_jax.data.tables import read_table
from pad_jax.errors import UserError
from pad_jax.files import check_readable
from pad_jax.recommend import read_histories
from pad_jax.text.table import read_own
from tests.support.readers import mind_config


def test_where_data_are_looked_for(monkeypatch):
    monkeypatch.setenv("PAD_JAX_DATA", "/somewhere")
    assert str(data_folder(DataSettings(), "prime_pantry")) == "/somewhere/prime_pantry"
    assert str(data_folder(DataSettings(path="/here"), "prime_pantry")) == "/here"
    monkeypatch.delenv("PAD_JAX_DATA")
    assert str(data_folder(DataSettings(), "prime_pantry")) == "data/prime_pantry"


def test_what_unpacks_to_far_more_than_a_table_does_is_refused(tmp_path, monkeypatch):
    size = 1 << 20
    monkeypatch.setattr("pad_jax.data.files.SMALL", size)
    monkeypatch.setattr("pad_jax.data.mind.SMALL", size)
    for name, content in (("a.csv.gz", b"user,item\n" + bytes(size)), ("a.jsonl.gz", b"\n" * (size + 1))):
        (tmp_path / name).write_bytes(gzip.compress(content, 1))
        with pytest.raises(UserError, match=r"unpacks to more than 100 times its size, which no table does"):
            read_table(tmp_path / name, ["user", "item"])
    with zipfile.ZipFile(tmp_path / "part.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("behaviors.tsv", bytes(size + 1))
        archive.writestr("news.tsv", "x")
    with pytest.raises(UserError, match=r"behaviors.tsv would be 1,048,577 bytes, more than 100 times"):
        readers.load(mind_config(tmp_path))


def test_a_line_that_no_row_has(tmp_path):
    line = b'{"user": "' + bytes(LONGEST_LINE)
    (tmp_path / "h.jsonl").write_bytes(b'{"user": "u", "history": ["i"]}\n' + line)
    with pytest.raises(UserError, match=r"h.jsonl, line 2: the line has more than 16 MiB"):
        read_histories(tmp_path / "h.jsonl")
    with zipfile.ZipFile(tmp_path / "part.zip", "w") as archive:
        archive.writestr("behaviors.tsv", line)
        archive.writestr("news.tsv", "x")
    with pytest.raises(UserError, match=r"part.zip/behaviors.tsv, line 1: the line has more than 16 MiB"):
        readers.load(mind_config(tmp_path))


def test_lines_are_those_of_the_file(tmp_path):
    content = b"a\n\nbc\r\nd" + b"e" * (3 << 20) + b"\nf"
    for name, packed in (("a", content), ("a.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(packed)
        assert list(lines_of(tmp_path / name)) == content.splitlines(keepends=True)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content)[:-20])
    with pytest.raises(UserError, match=r"a.gz cannot be read: Compressed file ended"):
        list(lines_of(tmp_path / "a.gz"))


def test_a_parquet_file_of_more_rows_than_bytes(tmp_path, monkeypatch):
    pl.DataFrame({"user": ["u"] * 100_000, "item": ["i"] * 100_000}).write_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(tables, "SMALL", 1)
    with pytest.raises(UserError, match=r"claims 100,000 rows, more than 100 for each of its bytes"):
        read_table(tmp_path / "a.parquet", ["user", "item"])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            {"descr": "<f4", "fortran_order": False, "shape": (1 << 44, 5)},
            "its header claims 351,843,720,888,320 bytes",
        ),
        ({"descr": "<f4", "fortran_order": False, "shape": (9, 5)}, "its header claims 180 bytes and it has 0"),
        ({"descr": "|O", "fortran_order": False, "shape": (9, 5)}, "it holds object, not numbers"),
        ({"descr": [("a", "<f4")], "fortran_order": False, "shape": (9,)}, "not numbers"),
        ({"descr": "<f4", "shape": (9, 5)}, "is not a safetensors or .npy file"),
    ],
)
def test_npy_headers_are_not_believed(tmp_path, header, message):
    text = repr(header).encode().ljust(117) + b"\n"
    path = tmp_path / "v.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(UserError, match=re.escape(message)):
        read_own(path, 9, "shop")


def test_names_that_no_file_has(tmp_path):
    for name in ("a\0b.csv", "x" * 300 + ".csv", "missing.csv", "."):
        with pytest.raises(UserError, match=r"does not exist|cannot be read|is not a file"):
            check_readable(tmp_path / name)
