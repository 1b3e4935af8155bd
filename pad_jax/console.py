"""Progress bars on a terminal, plain lines elsewhere."""

import sys
import time
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pad_jax import parallel

console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line; in a run of several processes the first alone speaks."""
    if parallel.is_main():
        console.print(text, markup=False)


class Task:
    """A piece of work with a known number of steps."""

    def __init__(self, label: str, total: int, bar: Progress | None, every: float):
        self.label, self.total, self.done, self._skipped = label, total, 0, 0
        self._bar, self._every = bar, every
        self._started = self._spoken = time.monotonic()
        self._row = bar.add_task(label, total=total, note="") if bar else None

    def skip(self, steps: int) -> None:
        """Steps that were done before, in no time."""
        self.done += steps
        self._skipped += steps
        if self._bar is not None and self._row is not None:
            self._bar.update(self._row, advance=steps)

    def advance(self, steps: int, note: str = "") -> None:
        self.done += steps
        if self._bar is not None and self._row is not None:
            self._bar.update(self._row, advance=steps, note=note)
            return
        now = time.monotonic()
        if now - self._spoken >= self._every:
            self._spoken = now
            elapsed = now - self._started
            left = elapsed / (self.done - self._skipped) * (self.total - self.done)
            say(f"{self.label}: {self.done}/{self.total}, {elapsed:.0f} s, {left:.0f} s left  {note}".rstrip())


@contextmanager
def progress(label: str, total: int, every: float = 30.0):
    """A Task: a bar on a terminal, elsewhere a line at most every `every` seconds."""
    if console.is_terminal and parallel.is_main() and sys.stdout.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            yield Task(label, total, bar, every)
    else:
        yield Task(label, total, None, every)
