"""Jobs: from a Config and a workdir to results on disk."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from pad_jax import cli, parallel
from pad_jax.errors import UserError
from pad_jax.pipeline import Run
from pad_jax.recommend import recommend
from pad_jax.settings import Config, check_choice
from pad_jax.studies import STUDIES


def main(argv: list[str]) -> int:
    """Runs the command line; 0 when the job did all it was asked, 2 for a user's mistake, said in one line.

    130 when the user stopped it.
    """
    try:
        arguments = cli.parse(argv)
        if arguments.coordinator:
            parallel.join(arguments.coordinator, arguments.processes, arguments.process)
        _cache_compilations()
        run(arguments.config, arguments.workdir, arguments.command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command continues from the last epoch", file=sys.stderr)
        return 130
    return 0


def run(config: Config, workdir: Path, command: Callable[[str], str] = "the job {}".format) -> dict[str, Any]:
    """Does `config.job` in `workdir` and returns the results as `results.json` holds them; none of a study.

    `command` tells the user how another job is run.
    """
    if config.job in STUDIES:
        STUDIES[config.job](config, workdir, command(config.job))
        return {}
    job = Run(config, workdir, command)
    alone: dict[str, Callable[[Run], Any]] = {"prepare": Run.prepare, "encode": lambda r: r.text.encode(again=True)}
    training: dict[str, Callable[[Run], None]] = {
        **{phase.name: functools.partial(_train, phase=phase.name) for phase in job.method.phases},
        "evaluate": Run.evaluate,
        "all": _train,
    }
    reading: dict[str, Callable[[Run], None]] = {"recommend": recommend}
    check_choice("job", config.job, [*alone, *training, *reading, *STUDIES])
    if config.job in alone:
        alone[config.job](job)
        return {}
    with job.workdir.locked():
        if config.job in reading:
            reading[config.job](job)
            return job.workdir.results
        training[config.job](job)
        if job.method.phases[-1].name in job.workdir.results["phases"]:
            job.export()
        job.show()
        parallel.wait("results")  # nobody reads them before they are written
    return job.workdir.results


def _train(run: Run, phase: str = "") -> None:
    """One phase, or all of them."""
    run.train([p for p in run.method.phases if phase in ("", p.name)])


def _cache_compilations() -> None:
    """Compiled programs are kept in the user's cache directory, unless JAX is told another place."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pad_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
