"""Progress bars on a terminal, plain lines elsewhere."""

import contextlib
import os
import sys
import time
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pad_jax import parallel


class _Output:
    """Standard output, whether anybody still reads it or not."""

    def __getattr__(self, name: str):
        return getattr(sys.stdout, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, UnicodeError):
            sys.stdout.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            sys.stdout.flush()


console = Console(file=_Output(), highlight=False, soft_wrap=True)  # type: ignore[arg-type]


def say(text: str) -> None:
    """One line; in a run of several processes the first alone speaks."""
    if parallel.is_main():
        console.print(printable(text), markup=False)


@contextmanager
def quiet(silent: bool = True):
    """Within it nothing is said and no bar is shown, unless `silent` is False."""
    before, console.quiet = console.quiet, console.quiet or silent
    try:
        yield
    finally:
        console.quiet = before


def show(text: str) -> None:
    """Many lines as they are, for whoever wants to keep them."""
    with contextlib.suppress(OSError, UnicodeError):
        print(printable(text), flush=True)


def complain(text: str) -> None:
    """One line on standard error."""
    with contextlib.suppress(OSError, UnicodeError):
        print(printable(text).replace("\n", " "), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Without what makes a terminal do things: names of files and datasets may hold anything."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


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
    if console.is_terminal and parallel.is_main() and sys.stdout.isatty() and not console.quiet:
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


def flush() -> None:
    """What was said is out, or nobody listens: then the end of the process need not try again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
