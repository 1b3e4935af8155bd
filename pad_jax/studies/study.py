"""What every study does: run its rows, seed by seed, and hand the finished ones to a report."""

import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import psutil

import pad_jax
from pad_jax.config import Config, check_choice, with_fields
from pad_jax.errors import UserError
from pad_jax.methods import METHODS
from pad_jax.pipeline import Run
from pad_jax.report.console import say
from pad_jax.report.groups import RunGroup
from pad_jax.report.page import Page
from pad_jax.report.results import read_ranks
from pad_jax.training import parallel
from pad_jax.workdir import run_name


@dataclass(frozen=True)
class Row:
    """A method under `fields` (dotted names) that differ from the study's configuration, once for each seed.

    `base` names a row of which this one repeats the phases `shares` exactly; they are copied instead.
    """

    name: str
    method: str = "pad"
    fields: Mapping[str, Any] = field(default_factory=dict)
    base: "Row | None" = None
    shares: tuple[str, ...] = ()

    def config(self, config: Config, seed: int) -> Config:
        return with_fields(config, {"job": "all", "method": self.method, "seed": seed, **self.fields})

    def folder(self, config: Config, seed: int) -> str:
        """The run's default name, and what is unusual about it."""
        unusual = {n: v for n, v in self.fields.items() if n != "backbone"}
        changes = [f"{n}={'+'.join(v) if isinstance(v, tuple) else v}" for n, v in unusual.items()]
        return ",".join([run_name(self.config(config, seed)), *changes])


@dataclass(frozen=True)
class Study:
    """Rows that were run, where they are, and how."""

    config: Config
    workdir: Path
    command: str
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        """<job>-<backbone>-<loss>-<recipe>, of its report."""
        c = self.config
        return f"{c.job}-{c.backbone}-{c.loss}-{c.recipe}"

    def path(self, row: Row, seed: int) -> Path:
        return self.workdir / row.folder(self.config, seed)

    def run(self, row: Row, seed: int) -> Run:
        """The run of a row, to train it or to work with what it has learned."""
        config = row.config(self.config, seed)
        return Run(config, self.path(row, seed), METHODS[row.method](config), lambda _: self.command)

    def group(self, row: Row) -> RunGroup:
        """All seeds of a row."""
        return RunGroup([self.path(row, seed) for seed in self.config.study.seeds])

    def train(self) -> None:
        """Runs what is not finished. Rows of one study may be run by several processes, each with its own seeds."""
        for seed in self.config.study.seeds:
            for row in self.rows:
                say(f"\n{row.name}, seed {seed}: {self.path(row, seed)}")
                run = self.run(row, seed)
                with run.workdir.locked():
                    if row.base is not None:
                        inherit(run, self.run(row.base, seed), row.shares)
                    run.train(run.method.phases)
                    run.workdir.write_table()
                    parallel.wait("results")

    def page(self, title: str) -> Page:
        """A page that begins with how its results were made."""
        c = self.config
        page = Page(title)
        seeds = f"seed{'s' if len(c.study.seeds) > 1 else ''} {', '.join(map(str, c.study.seeds))}"
        encoder = self.group(self.rows[0]).results[0]["text_encoder"] or {}
        page.text(
            f"Dataset {c.dataset}, recipe `{c.recipe}`, loss `{c.loss}`, {seeds}; text encoder "
            f"{encoder.get('encoder', '-')}. Metrics are of the test split, in percent, over all items that the user "
            "has not met; each run is the checkpoint of its best epoch on the validation split. Made by"
        )
        page.code(self.command)
        found = ", ".join(f"{name} {number}" for name, number in pad_jax.versions().items())
        device = jax.devices()[0].device_kind
        page.text(f"on {machine()}, {jax.device_count()} device(s) of kind {device}; {found}.")
        return page


def machine() -> str:
    """Processor, cores and memory."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def gain(new: float, old: float) -> float:
    """Relative gain in percent."""
    return 100 * (new / old - 1) if old else float("inf")


def chance(p: float) -> str:
    """A p-value as people write it."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def inherit(run: Run, base: Run, phases: Sequence[str]) -> None:
    """Copies finished phases of `base` that `run` would repeat: checkpoints, results and ranks."""
    results, theirs = run.workdir.results, base.workdir.results
    missing = [phase for phase in phases if phase not in theirs["phases"]]
    if missing:
        raise UserError(f"{base.workdir.path} has not finished {missing[0]}; run it first")
    wanted = [phase for phase in phases if phase not in results["phases"]]
    if not wanted or jax.process_index() != 0:
        return
    ranks = {n: r for n, r in read_ranks(base.workdir.path).items() if n.partition("/")[2] not in theirs["phases"]}
    for phase in wanted:
        to = run.workdir.path / phase
        run.workdir.write_config(phase)
        shutil.rmtree(to / "checkpoints", ignore_errors=True)  # what a killed study may have left
        shutil.copytree(base.workdir.path / phase, to, ignore=shutil.ignore_patterns("config.json"), dirs_exist_ok=True)
        results["phases"][phase] = theirs["phases"][phase]
        ranks |= {n: r for n, r in read_ranks(base.workdir.path).items() if n.partition("/")[2] == phase}
    last = results["phases"][phases[-1]]
    results |= {n: theirs[n] for n in ("baselines", "text_encoder")} | {n: last[n] for n in ("valid", "test")}
    run.workdir.write(ranks)


def study(rows: Callable[[Config], list[Row]], report: Callable[[Study], Page]) -> Callable[[Config, Path, str], None]:
    """A job: trains the rows of a configuration in a workdir, writes the report, and says where it is."""

    def job(config: Config, workdir: Path, command: str) -> None:
        found = rows(config)
        for name in config.study.only:
            check_choice("study.only", name, [row.name for row in found])
        if config.study.only:
            bases = [row.base for row in found if row.name in config.study.only]
            found = [row for row in found if row.name in config.study.only or row in bases]
        done = Study(config, workdir, command, found)
        done.train()
        if jax.process_index() == 0:
            say(f"\nreport: {report(done).write(workdir, done.name)}")

    return job
