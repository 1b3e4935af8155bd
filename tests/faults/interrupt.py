"""A job that is killed, terminated, or refused by the system at some call, and done again.

Fine is: a refusal is exit code 2 and one line, a termination exit code 143 within ten seconds and one line; and the
same command then ends well with the very results, lists and model of a run that nothing disturbed, nothing half-written
beside them.
"""

import errno
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import shop as shops
from tests.faults.children import in_child, one_line
from tests.faults.shop import ONE

#: What a job does, and which of the shop it starts with; the last takes longest.
JOBS = (*4 * ("all", "evaluate"), *6 * ("recommend",), *4 * ("prepare",), *2 * ("refit",), "compare")
WAYS = ("kill at a call", "kill at a time", "terminate", "full once", "full", "read-only", "small files")
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")


class Shim:
    """Counts what is changed below a folder, and at the n-th change does something else.

    It is an audit hook of Python: everything that the interpreter opens for writing, makes, renames or removes.
    """

    def __init__(self, folder: Path, at: int = 0, act: Callable[[], None] | None = None, from_then_on: bool = False):
        self.folder, self.at, self.act, self.from_then_on = str(folder), at, act, from_then_on
        self.count = 0
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            _, mode, flags = arguments
            if not (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if mode is None else set(str(mode)) & set("wax+")):
                return
        elif event not in _CHANGES:
            return
        if isinstance(arguments[0], int) or self.folder not in os.path.abspath(os.fsdecode(arguments[0])):
            return
        self.count += 1
        if self.act and (self.count == self.at or (self.from_then_on and self.count > self.at > 0)):
            self.act()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _error(number: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


ACTS = {
    "kill at a call": (_kill, False),
    "full once": (_error(errno.ENOSPC), False),
    "full": (_error(errno.ENOSPC), True),
    "read-only": (_error(errno.EROFS), True),
}
_counts: dict[tuple[str, str], tuple[int, float]] = {}


def case(shop: Path, number: int, seed: int) -> dict[str, Any]:
    draw = random.Random(f"interrupt {seed} {number}")
    job, way = draw.choice(JOBS), draw.choice(WAYS)
    folder = shop.with_name("interrupt")
    usual, changes, seconds = undisturbed(shop, job)
    _begin(shop, folder, job)
    told: dict[str, Any] = {"job": job, "way": way}
    where = folder / "runs"
    wrong = ""
    if way in ACTS:
        act, from_then_on = ACTS[way]
        told["at"] = at = 1 + draw.randrange(changes)

        def disturbed() -> int:
            Shim(where, at, act, from_then_on)
            return _do(job)

        outcome = in_child(disturbed, folder)
    elif way == "small files":
        told["at"] = most = int(2 ** draw.uniform(6, 18))

        def disturbed() -> int:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            return _do(job)

        outcome = in_child(disturbed, folder)
    elif way == "kill at a time":
        told["at"] = wait = draw.uniform(0, seconds)
        outcome = in_child(lambda: _do(job), folder, wait=wait)
    else:
        told["at"] = wait = draw.uniform(0, seconds)

        def disturbed() -> int:
            def send() -> None:
                time.sleep(wait)
                os.kill(os.getpid(), signal.SIGTERM)

            threading.Thread(target=send, daemon=True).start()
            return _do(job)

        outcome = in_child(disturbed, folder)
        if outcome.code not in (0, 143, -signal.SIGTERM):  # the last: before the program could say anything
            wrong = f"exit code {outcome.code}"
        elif outcome.code == 143 and "terminated: the same command continues" not in outcome.said:
            wrong = "says nothing"
        if outcome.seconds > wait + 10:
            wrong = f"{outcome.seconds - wait:.0f} s from SIGTERM to the end"
    if way in ("full once", "full", "read-only", "small files") and outcome.code != 0:
        wrong = one_line(outcome)
    told["code"] = outcome.code
    if not wrong:
        again = in_child(lambda: _do(job), folder)
        if again.code:
            wrong = f"does not continue: exit code {again.code}: {again.said[-1000:]}"
        elif _found(folder, job) != usual:
            wrong = "the results are others"
        elif left := [str(p.relative_to(folder)) for p in shops.leftovers(folder)]:
            wrong = f"left: {left}"
    return told | {"wrong": wrong, "said": outcome.said[-2000:] if wrong else ""}


def undisturbed(shop: Path, job: str) -> tuple[Any, int, float]:
    """What a job leaves that nothing disturbs, how many changes it makes, and how long it takes."""
    folder = shop.with_name(f"usual-{job}")
    if (str(folder), job) not in _counts:
        _begin(shop, folder, job)

        def counted() -> int:
            shim = Shim(folder / "runs")
            code = _do(job)
            Path("count.txt").write_text(str(shim.count))
            return code

        outcome = in_child(counted, folder)
        shops.check(outcome)
        _counts[str(folder), job] = int((folder / "count.txt").read_text()), outcome.seconds
    return _found(folder, job), *_counts[str(folder), job]


def _begin(shop: Path, folder: Path, job: str) -> None:
    """A shop without what the job makes."""
    shops.copy(shop, folder)
    if job in ("all", "prepare", "compare"):
        shutil.rmtree(folder / "runs")
    if job == "recommend":
        shutil.rmtree(folder / ONE / "model")


def _do(job: str) -> int:
    path = ONE if job in ("all", "evaluate", "recommend", "refit") else None
    return shops.command(job, path, {"method": "pad"} if job == "compare" else {})


def _found(folder: Path, job: str) -> Any:
    """What has to be the same."""
    if job == "prepare":
        return shops.contents(next((folder / "runs" / "shop").glob("prepared-*")))
    if job == "compare":
        runs = sorted(p.parent for p in (folder / "runs").rglob("results.json"))
        return {str(p.relative_to(folder)): shops.results(p) for p in runs}
    run = folder / ONE
    if job == "refit":
        return shops.contents(run / "refit" / "model")
    parts = [shops.results(run), shops.contents(run / "model")]
    return (*parts, (run / "recommendations.parquet").read_bytes()) if job == "recommend" else tuple(parts)
