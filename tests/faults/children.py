"""A function in a process of its own: fast, as everything is imported already, and whatever it does to the process."""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HANGS = 120.0  # seconds


class Outcome(NamedTuple):
    code: int  # exit code; minus the signal that ended it
    said: str  # on both streams
    seconds: float
    memory: int  # bytes at its peak


def in_child(function: Callable[[], int], folder: Path, timeout: float = HANGS, wait: float | None = None) -> Outcome:
    """What `function` returns as the exit code of a process in `folder`.

    With `wait` the process gets a SIGKILL after so many seconds. Raises TimeoutError for one that does not end.
    """
    log = folder / "said.txt"
    log.touch()  # whoever is killed at once has said nothing
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        _run(function, folder, log)
    deadline = started + (timeout if wait is None else wait)
    pause = 0.001
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
            if wait is None:
                raise TimeoutError(f"no end after {timeout} s: {log.read_text(errors='replace')[-2000:]}")
            break
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    said = log.read_text(errors="replace")
    log.unlink()
    return Outcome(os.waitstatus_to_exitcode(status), said, time.monotonic() - started, used.ru_maxrss * 1024)


def _run(function: Callable[[], int], folder: Path, log: Path) -> None:
    code = 99
    try:
        os.chdir(folder)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(fd, "w", encoding="utf-8", buffering=1) for fd in (1, 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def one_line(outcome: Outcome) -> str:
    """What is wrong with the way a process refused; "" for exit code 2 and a single line that says error."""
    if outcome.code != 2:
        return f"exit code {outcome.code}"
    errors = [line for line in outcome.said.splitlines() if line.startswith("error: ")]
    if len(errors) != 1 or "Traceback" in outcome.said:
        return "not one line"
    return ""
