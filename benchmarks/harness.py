"""Taking turns, medians of paired ratios, JSON lines and a small table."""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from pad_jax import environment
from pad_jax.errors import UserError


class Report:
    """Prints a JSON line per measurement as it is made, and all of them as a table at the end."""

    def __init__(self, benchmark: str, columns: tuple[str, ...]):
        self.benchmark, self.columns, self.lines = benchmark, columns, []

    def __enter__(self) -> "Report":
        print(json.dumps({"benchmark": self.benchmark, **machine()}), flush=True)
        return self

    def add(self, **values: Any) -> None:
        self.lines.append(values)
        print(json.dumps({"benchmark": self.benchmark, **values}), flush=True)

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            table = Table(*self.columns, title=f"{self.benchmark}: {machine()['cpu']}")
            for line in self.lines:
                table.add_row(*(_show(line.get(column)) for column in self.columns))
            Console(width=150).print(table)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    cpu = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = [str(getattr(device, "device_kind", device)) for device in jax.local_devices()]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": f"{cpu}, {cores} cores",
        "devices": devices,
        "versions": environment.versions(),
    }


def in_turn(contenders: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each contender in every round; they run one after the other, in the given order.

    A rest before each turn lets the worker threads of the one before fall asleep, which spin for a while.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-warm_up, rounds):
        for name, run in contenders.items():
            time.sleep(0.1)
            started = time.perf_counter()
            run()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(peer: list[float], ours: list[float]) -> dict[str, float]:
    """Median, least and most of peer / ours, round by round."""
    ratios = [p / o for p, o in zip(peer, ours, strict=True)]
    return {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}


def in_own_process(module: str, case: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """What `python -m module --case CASE` prints last, as JSON: memory peaks belong to a process."""
    command = [sys.executable, "-m", module, "--rounds", str(rounds), "--case", json.dumps(case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)} ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_mib() -> float:
    """Most host memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def arguments(doc: str, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="turns that count (default %(default)s)")
    return parser


def run(main: Callable[[], None]) -> None:
    """Runs a benchmark; a user's mistake is one line and exit code 2."""
    jax.config.update("jax_default_matmul_precision", "float32")
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
