"""One damaged artefact of a finished run, and one job on it.

Fine is: exit code 2 and one line, or exit code 0 and the very results of the run without damage.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults import shop as shops
from tests.faults.children import one_line
from tests.faults.shop import ONE, PART, TWO

JOBS = (*4 * ("all", "evaluate", "recommend", "report", "load"), "resume")  # the last takes longest
_KINDS = ("results.json", "config.json", "ranks.safetensors", "*/metrics.jsonl", "*/phase.json", "*/config.json")
_KINDS += (
    "arrays.safetensors",
    "model/*",
    "*/checkpoints/*/progress/*",
    "*/checkpoints/*/data/*",
    "*/checkpoints/*/state/**/*",
)
_KINDS += ("*/checkpoints/*/_CHECKPOINT_METADATA", "*/checkpoints/*/metrics/*", "../prepared-*/*", "../../../text.*")


def artefacts(shop: Path, run: Path) -> list[list[Path]]:
    """The files of a run that are read again, by kind."""
    found = [sorted(p.resolve() for p in (shop / run).glob(kind) if p.is_file()) for kind in _KINDS]
    here = [[p.relative_to(shop.resolve()) for p in paths if p.name != "commit_success.txt"] for paths in found]
    return [paths for paths in here if paths]


def truncate(path: Path, other: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) or 1)])


def flip(path: Path, other: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


def other_byte(path: Path, other: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[draw.randrange(len(content))] = draw.choice(b"0123456789aAzZ-.,}{\"'\n ")
    path.write_bytes(bytes(content))


def zero(path: Path, other: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    begin = draw.randrange(len(content))
    end = min(len(content), begin + 1 + draw.randrange(64))
    content[begin:end] = bytes(end - begin)
    path.write_bytes(bytes(content))


def lengthen(path: Path, other: Path, draw: random.Random) -> None:
    with open(path, "ab") as file:
        file.write(bytes(draw.randrange(256) for _ in range(1 + draw.randrange(64))))


def remove(path: Path, other: Path, draw: random.Random) -> None:
    path.unlink()


def folder_instead(path: Path, other: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path, other: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path, other: Path, draw: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def swap(path: Path, other: Path, draw: random.Random) -> None:
    """The same file of the other run, or the folder that it is in, where there is one; a whole run is no damage."""
    if other == path:
        return
    if draw.random() < 0.3 and other.parent.is_dir() and other.parent.name != TWO.name:
        shutil.rmtree(path.parent)
        shutil.copytree(other.parent, path.parent)
    elif other.exists():
        shutil.copyfile(other, path)


def garbage(path: Path, other: Path, draw: random.Random) -> None:
    path.write_bytes(draw.choice([b"", b"null", b"[1]", b'{"format": 2}', b"\xff\xfe\x00", b"{" * 5000, b"NaN"]))


DAMAGES: tuple[Callable[..., None], ...] = (
    *(truncate, flip, other_byte, zero, lengthen, remove),
    *(folder_instead, pipe_instead, loop, swap, garbage),
)


def case(shop: Path, number: int, seed: int) -> dict[str, Any]:
    draw = random.Random(f"damage {seed} {number}")
    damage, job = draw.choice(DAMAGES), draw.choice(JOBS)
    run = PART if job == "resume" else ONE
    path = draw.choice(draw.choice(artefacts(shop, run)))
    folder = shop.with_name("damage")
    shops.copy(shop, folder)
    damage(folder / path, folder / str(path).replace(str(run), str(TWO)), draw)
    outcome = shops.run(folder, "all" if job == "resume" else job, run)
    wrong = one_line(outcome)
    if outcome.code == 0:
        wrong = differs(shop, folder, job)
    told = {"file": str(path), "damage": damage.__name__, "job": job, "code": outcome.code}
    return told | {"wrong": wrong, "said": outcome.said[-2000:] if wrong else ""}


def differs(shop: Path, folder: Path, job: str) -> str:
    """How the results of a job are others than those of the run without damage; "" if they are not."""
    run = PART if job == "resume" else ONE
    if job in ("all", "evaluate", "resume"):
        usual, found = (shops.results(path, ranks_too=job != "all") for path in (shop / ONE, folder / run))
        return "" if usual == found else "the results are others"  # `all` does not read ranks of finished phases
    if job == "recommend":
        lists = [(root / ONE / "recommendations.parquet").read_bytes() for root in (shop, folder)]
        return "" if lists[0] == lists[1] else "the lists are others"
    if job == "load":
        if not (shop / "loaded.npz").exists():
            shops.check(shops.run(shop, "load", ONE))
        usual, found = (np.load(root / "loaded.npz") for root in (shop, folder))
        if not all(np.array_equal(usual[name], found[name]) for name in usual):
            return "the lists are others"
    return ""
