"""Files of users, with pieces put in, cut out or in another place, and what reads them.

Fine is: what is read, or one line for the user; no other error, and no more than 2 GiB of memory for it.
"""

import gzip
import io
import random
import resource
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.faults.children import in_child

_PIECES = (
    *(
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b",",
        b'"',
        b'""',
        b"'",
        b"\x00",
        b"\x01",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b" ",
        b"\\",
    ),
    *(b"\xff", b"\xed\xa0\x80", b"NaN", b"nan", b"inf", b"-1", b"0", b"1e999", b"1e-999", b"null", b"true", b"\\ud800"),
    *(b"9" * 30, b"a" * 70_000, b"2019-13-45", b"\xef\xbb\xbf", b"\x1f\x8b\x08", b"PK\x03\x04", b"\x93NUMPY", b"PAR1"),
)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """With a few pieces put in, in place of others, moved or cut off."""
    for _ in range(draw.randint(1, 4)):
        begin = draw.randint(0, len(content))
        end = min(len(content), begin + draw.choice((0, 0, 1, draw.randint(0, 30), draw.randint(0, 500))))
        piece = draw.choice((*_PIECES, draw.randbytes(draw.randint(0, 12)), content[end : end + 40], b""))
        content = content[:begin] + piece + content[end:]
    return content[: draw.randint(0, len(content))] if draw.random() < 0.2 else content


def _write(path: Path, content: bytes, draw: random.Random) -> None:
    """Damaged, or packed and damaged, or damaged and packed."""
    if path.suffix == ".gz":
        content = (
            gzip.compress(damaged(content, draw)) if draw.random() < 0.5 else damaged(gzip.compress(content), draw)
        )
    elif path.suffix == ".zip":
        packed = io.BytesIO()
        how = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
        with zipfile.ZipFile(packed, "w", how) as archive:
            for name, part in (("behaviors.tsv", content), ("news.tsv", _NEWS)):
                archive.writestr(f"part/{name}", damaged(part, draw) if draw.random() < 0.3 else part)
        content = damaged(packed.getvalue(), draw)
    else:
        content = damaged(content, draw)
    path.write_bytes(content)


_MEMORY = 2 << 30  # bytes that reading may take
_EVENTS = [(f"u{u}", f"i{(u + n) % 7}", 100 * n + u, 1 + (u + n) % 5) for u in range(4) for n in range(7)]
_ITEMS = [(f"i{n}", f"Thing, {n}", f"B{n % 2}") for n in range(9)]
_NEWS = "".join(f"N{n}\tnews\tworld\tTitle {n}\tabstract\thttps://x\t[]\t[]\n" for n in range(6)).encode()
_BEHAVIORS = "".join(
    f"{n}\tU{n % 3}\t11/{9 + n % 5}/2019 {1 + n % 11}:05:00 AM\tN{n % 6} N{(n + 1) % 6}\tN{(n + 2) % 6}-1 N{n % 6}-0\n"
    for n in range(18)
).encode()


def _tables(folder: Path, draw: random.Random) -> Callable[[], Any]:
    from pad_jax.data import readers
    from tests.support.readers import table_config

    form = draw.choice(("csv", "tsv", "jsonl", "parquet", "csv.gz", "jsonl.gz"))
    frames = {
        "events": pl.DataFrame(_EVENTS, ["user", "item", "time", "stars"], orient="row"),
        "items": pl.DataFrame(_ITEMS, ["item", "title", "brand"], orient="row"),
    }
    broken = draw.choice(("events", "items"))
    paths = {}
    for name, frame in frames.items():
        paths[name] = folder / f"{name}.{form}"
        content = io.BytesIO()
        if form == "parquet":
            frame.write_parquet(content)
        elif form.startswith("jsonl"):
            frame.write_ndjson(content)
        else:
            frame.write_csv(content, separator="\t" if form == "tsv" else ",")
        if name == broken:
            _write(paths[name], content.getvalue(), draw)
        else:
            paths[name].write_bytes(gzip.compress(content.getvalue()) if form.endswith(".gz") else content.getvalue())
    config = table_config(
        folder,
        events=str(paths["events"]),
        catalogue=str(paths["items"]),
        text=draw.choice(("{title}", "{title}, by {brand}")),
        rating=draw.choice(("", "stars")),
        data={"time": draw.choice(((), (150, 300), ("2019-01-01", "2019-02-01"))), "whole": draw.random() < 0.5},
    )
    return lambda: readers.load(config).split("test", 3)


def _mind(folder: Path, draw: random.Random) -> Callable[[], Any]:
    from pad_jax.data import readers
    from tests.support.readers import mind_config

    form = draw.choice(("raw", "zip", "prepared"))
    if form == "zip":
        _write(folder / "part.zip", _BEHAVIORS, draw)
    elif form == "raw":
        for name, content in (("behaviors.tsv", _BEHAVIORS), ("news.tsv", _NEWS)):
            (folder / name).write_bytes(content)
        _write(folder / (name := draw.choice(("behaviors.tsv", "news.tsv"))), (folder / name).read_bytes(), draw)
    else:
        (folder / "users.tsv").write_bytes(damaged(b"U2\tN1 N2 N3 N1 N2 N2\nU1\tN3 N3 N1 N2 N2\nU3\tN1 N2\n", draw))
        (folder / "items.tsv").write_bytes(damaged(b"N2\tTwo\nN1\tOne\nN3\tThree\n", draw))
    return lambda: readers.load(mind_config(folder)).split("test", 3)


def _amazon(folder: Path, draw: random.Random) -> Callable[[], Any]:
    from pad_jax.data import readers
    from tests.support.raw_data import amazon
    from tests.support.readers import in_folder

    items = {f"B{n}": f"Tea {n}" for n in range(6)}
    amazon(folder, {f"A{u}": list(items) for u in range(3)}, items, draw.random() < 0.5)
    target = draw.choice(sorted(folder.iterdir()))
    content = target.read_bytes()
    _write(target, gzip.decompress(content) if target.suffix == ".gz" else content, draw)
    return lambda: readers.load(in_folder("electronics", folder)).split("test", 3)


def _histories(folder: Path, draw: random.Random) -> Callable[[], Any]:
    from pad_jax.recommend import read_histories

    path = folder / draw.choice(("h.jsonl", "h.jsonl.gz"))
    lines = "".join(f'{{"user": "u{u}", "history": ["i1", {u}, "i{u}"]}}\n' for u in range(5))
    _write(path, lines.encode(), draw)
    return lambda: read_histories(path)


def _vectors(folder: Path, draw: random.Random) -> Callable[[], Any]:
    from safetensors.numpy import save

    from pad_jax.text.table import read_own

    rows = np.random.default_rng(0).normal(size=(9, 5)).astype(draw.choice(("f4", "f2", "f8")))
    content = io.BytesIO()
    np.save(content, rows)
    path = folder / draw.choice(("v.npy", "v.safetensors"))
    path.write_bytes(damaged(content.getvalue() if path.suffix == ".npy" else save({"v": rows}), draw))
    return lambda: read_own(path, 9, "shop")


def _text_table(folder: Path, draw: random.Random) -> Callable[[], Any]:
    from pad_jax.text.table import read_table
    from tests.support.data import tiny_dataset, tiny_text, write_table

    path, dataset = folder / "text.safetensors", tiny_dataset()
    write_table(path, tiny_text()[1:], dataset, {"encoder": "random"})
    content = path.read_bytes()
    path.write_bytes(damaged(content, draw))
    same = path.read_bytes() == content

    def read() -> None:
        rows, _ = read_table(path, dataset)
        assert same or np.array_equal(rows, tiny_text()), "another table than was written"

    return read


def _config_file(folder: Path, draw: random.Random) -> Callable[[], Any]:
    from pad_jax.cli import parse

    text = (
        "from pad_jax.config import config_dict\n\n\ndef get_config(job):\n    config = config_dict('shop', job)\n"
        "    config.data.reader = 'table'\n    config.table.events = 'events.csv'\n    return config\n"
    )
    path = folder / "shop.py"
    broken = ("1 / 0", "raise SystemExit(3)", "undefined", "config.no = 1", "return 3", "import nothing_of_that_name")
    if draw.random() < 0.6:
        lines = text.splitlines()
        place = draw.randint(0, len(lines))
        lines.insert(place, draw.choice(("", "    ")) + draw.choice(broken))
        path.write_text("\n".join(lines))
    else:  # a program must not be told to do just anything: letters of names alone
        content = bytearray(text.encode())
        for _ in range(3):
            content[draw.randrange(len(content))] = draw.choice(b"abcxyz_ ():=\n'\xff")
        path.write_bytes(bytes(content))
    return lambda: parse(["main.py", f"--config={path}:prepare"])


KINDS = (_tables, _tables, _tables, _mind, _mind, _amazon, _histories, _vectors, _text_table, _config_file)


def case(shop: Path, number: int, seed: int) -> dict[str, Any]:
    """In a process of its own: threads that readers start are lost to processes that are forked from theirs."""
    draw = random.Random(f"input {seed} {number}")
    make = draw.choice(KINDS)
    with tempfile.TemporaryDirectory(dir=shop.parent) as place:
        folder = Path(place, "files")
        folder.mkdir()
        outcome = in_child(lambda: _read(make, folder, draw), Path(place))
    wrong = "" if outcome.code == 0 else outcome.said[-1000:] or f"exit code {outcome.code}"
    return {"reader": make.__name__.strip("_"), "wrong": wrong}


def _read(make: Callable[..., Callable[[], Any]], folder: Path, draw: random.Random) -> int:
    from pad_jax.errors import UserError

    read = make(folder, draw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read()
    except UserError as error:
        if "\n" in str(error):
            print(f"more than one line: {error}")
            return 1
    more = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if more > _MEMORY:
        print(f"{more >> 20} MiB of memory")
        return 1
    return 0
