"""Ten jobs of a first day with own tables: lines of code here, with RecTools and with implicit, and whether they run.

The tables are those of MovieTweetings ($PAD_JAX_DATA/movietweetings), or where it is absent generated ones. No JAX is
imported but by `ours`.
"""

import argparse
import importlib.metadata
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import pad_jax
from benchmarks.first_day.jobs import LIBRARIES, check, generated, jobs_of, lines_of, movietweetings, shop
from pad_jax.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whose", choices=list(LIBRARIES), help="library whose jobs are done")
    parser.add_argument("--generated", action="store_true", help="the generated tables in any case")
    parser.add_argument("--epochs", type=int, default=3, help="of training, a phase (default %(default)s)")
    parser.add_argument("--workdir", default="runs/first_day", help="(default %(default)s)")
    options = parser.parse_args()
    jobs = jobs_of(options.whose)
    lines = {library: lines_of(library) for library in LIBRARIES}
    tables = None if options.generated else movietweetings()
    name = "generated" if tables is None else "movietweetings"
    asked = shop(Path(options.workdir) / name / options.whose, *(tables or generated()), options.epochs)
    version = pad_jax.__version__ if options.whose == "ours" else importlib.metadata.version(options.whose)
    table = Table("job", *LIBRARIES, "ran", "seconds", title=f"Lines of code; ran: {options.whose} {version}, {name}")
    given, failed = [asked], False
    for job, function in jobs.items():
        begin, outcome = time.perf_counter(), "-"
        if lines[options.whose][job]:
            try:
                answer = function(*given)
                check(job, asked, answer)
                given, outcome = [asked, given[1] if given[1:] else answer], "yes"
            except Exception as error:  # of any library: the table says what, and the other jobs go on
                outcome, failed = f"no, {type(error).__name__}: {error}", True
        counts = [str(of[job] or "-") for of in lines.values()]
        table.add_row(job, *counts, outcome, f"{time.perf_counter() - begin:.1f}")
        if len(given) == 1:
            break  # nothing is trained
    table.add_row("all", *(str(sum(of.values())) for of in lines.values()))
    Console(width=120).print(table)
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
