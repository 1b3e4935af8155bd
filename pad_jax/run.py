"""Jobs: from a Config and a workdir to results on disk."""

import errno
import os
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from pad_jax import boundary, cli, parallel
from pad_jax.console import say
from pad_jax.errors import UserError
from pad_jax.evaluate import evaluate
from pad_jax.pipeline import Run
from pad_jax.recommend import recommend
from pad_jax.refit import refit
from pad_jax.sealed import DamagedError
from pad_jax.search import search
from pad_jax.service import serve
from pad_jax.settings import Config, check_choice, with_fields
from pad_jax.studies import STUDIES
from pad_jax.studies.study import is_of_data
from pad_jax.tune import tune
from pad_jax.workdir.identity import home, locked, run_of, settings_of
from pad_jax.workdir.results import read_results

#: Jobs that work with what a workdir has learned, under its settings.
WITH_TRAINED = {"evaluate": evaluate, "recommend": recommend, "refit": refit}
#: Methods of the demo: the paper's, and the one to recommend.
DEMO = ("pad", "blend")


def main(argv: list[str]) -> int:
    """Runs the command line; an exit code as in `boundary`."""
    place: list[Path | None] = [None]

    def work() -> None:
        arguments = cli.parse(argv)
        place[0] = arguments.workdir
        if arguments.coordinator:
            parallel.join(arguments.coordinator, arguments.processes, arguments.process)
        cache_compilations()
        named = any(argument.lstrip("-").partition("=")[0] in ("config", "workdir") for argument in argv[1:])
        if not named and "method" not in arguments.given:
            demo(arguments)
        else:
            run(arguments.config, arguments.workdir, arguments.command, arguments.given)

    return boundary.run(work, lambda: place[0])


def demo(arguments: cli.Arguments) -> None:
    """Where neither config, method nor workdir is named: the methods of `DEMO`, and one table of all."""
    before: list[dict[str, Any]] = []
    for method in DEMO:
        job = Run(with_fields(arguments.config, {"method": method}), None, arguments.command)
        before.insert(0, train(job, before))


def run(
    config: Config,
    workdir: Path | None = None,
    command: Callable[[str, Path | None], str] = lambda job, _: f"the job {job}",
    given: Collection[str] = (),
) -> dict[str, Any]:
    """Does `config.job` and returns the results as `results.json` holds them; none of a study.

    Args:
        config: of the run; the jobs of `WITH_TRAINED` and `serve` take theirs from the workdir.
        workdir: where results are; None: where they belong by dataset and configuration.
        command: tells the user how a job is run with a workdir.
        given: fields that the command line sets, for these jobs.

    Raises UserError for what the user has to mend.
    """
    if config.job in STUDIES:
        if config.study.datasets and (lost := next(filter(is_of_data, given), "")):
            raise UserError(f"config.{lost} is that of each file of config.study.datasets: set it there")
        usual = home(config)
        folder = workdir or (usual.parent if config.study.datasets else usual)
        STUDIES[config.job](config, folder, command(config.job, folder), partial(cli.configuration, config.recipe))
        return {}
    if config.job == "search":
        search(config, workdir, command("search", workdir))
        return {}
    if config.job in WITH_TRAINED or config.job == "serve":
        return _with_trained(config, workdir, command, given)
    job = Run(config, workdir, command)
    if config.job == "prepare":
        job.prepare()
        return {}
    if config.job == "encode":
        job.text.encode()
        return {}
    if config.job == "tune":
        tune(job)
        return {}
    phases = [phase.name for phase in job.method.phases]
    jobs = ["prepare", "encode", "tune", "search", *phases, "all", *WITH_TRAINED, "serve", *STUDIES]
    check_choice("job", config.job, jobs)
    return train(job)


def train(job: Run, beside: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Trains the phases that the job of a run names, or with `all` every one, and returns the results.

    A phase that is done is left alone; when the last one is, the workdir has its `model/`. Results of runs `beside` it
    are shown, too. Raises UserError.
    """
    _ = job.workdir  # refused before anything is written
    with locked(job.path):
        job.train([phase for phase in job.method.phases if job.config.job in ("all", phase.name)])
        parallel.wait("results")  # nobody reads them before they are written
        if job.is_finished:
            job.export()
        job.show(beside)
        if job.is_finished:
            say(f"explore its lists: {job.command('serve')}")
    return job.workdir.results


def _with_trained(config: Config, workdir: Path | None, command: Any, given: Collection[str]) -> dict[str, Any]:
    """The jobs that work with what a workdir holds, under the settings that it was made with."""
    path = workdir or run_of(config, given, command("all", None))
    try:
        finished = bool(read_results(path).get("phases"))
    except DamagedError:
        if config.job != "evaluate":  # which makes them again
            raise
        finished = True
    if not finished:
        raise UserError(f"{path} holds no finished phase; train it with: {command('all', path)}")
    job = Run(settings_of(path, config, given), path, command)
    say(f"settings and model from {path}")
    if config.job == "serve":
        return serve(job)
    with locked(path, reads=config.job == "recommend"):
        return WITH_TRAINED[config.job](job)


def cache_compilations() -> None:
    """Compiled programs are kept in the user's cache directory, unless JAX is told another place."""
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")  # a full disk
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        try:
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pad_jax" / "xla"
            cache.mkdir(parents=True, exist_ok=True)
            if not os.access(cache, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            jax.config.update("jax_compilation_cache_dir", str(cache))
        except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows this user's home
            say(f"compiled programs are not kept for the next run ({getattr(error, 'strerror', None) or error})")
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
