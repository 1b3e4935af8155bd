"""What every study does: run its rows, seed by seed, and hand the finished ones to a report."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from pad_jax import parallel
from pad_jax.console import say
from pad_jax.data.dataset import SPLITS
from pad_jax.errors import UserError
from pad_jax.methods.registry import METHODS
from pad_jax.pipeline import Run
from pad_jax.registry import SECTIONS
from pad_jax.report.groups import RunGroup
from pad_jax.report.page import Page, add_curves
from pad_jax.report.table import of_lists
from pad_jax.settings import Config, as_dict, check_choice, dotted, setting, with_fields
from pad_jax.training.checkpoint import adopt
from pad_jax.workdir.identity import digest, locked, place_of, run_name
from pad_jax.workdir.results import read_ranks, write_summary


@dataclass(frozen=True)
class StudySettings:
    """What the jobs compare, backbones, ablate and analyse run."""

    seeds: tuple[int, ...] = setting((0, 1, 2), "three runs", "P", least=0)
    only: tuple[str, ...] = setting((), "names of rows; empty: all")

    def check(self, config: Config) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"config.study.seeds must be different whole numbers, not {self.seeds}")


SECTIONS.register("study", StudySettings)


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
    usual: bool = True  # whether it is run without being named in `study.only`

    def config(self, config: Config, seed: int) -> Config:
        return with_fields(config, {"job": "all", "method": self.method, "seed": seed, **self.fields})

    def folder(self, config: Config, seed: int) -> str:
        """The run's default name, and what is unusual about it."""
        known = dotted(as_dict(config))
        unusual = {n: v for n, v in self.fields.items() if n != "backbone" and known[n] != v}
        changes = [f"{n}={'+'.join(v) if isinstance(v, tuple) else v}" for n, v in unusual.items()]
        return ",".join([run_name(self.config(config, seed)), *changes])


def equal_budget(config: Config, method: str) -> dict[str, Any]:
    """The fields that give the last phase of a method the epochs and minutes of those of PAD's phases it has not."""
    own, pads = (
        [p.name for p in METHODS[name](with_fields(config, {"method": name})).phases] for name in (method, "pad")
    )
    sections = [getattr(config, name) for name in (own[-1], *(name for name in pads if name not in own))]
    total = {limit: sum(getattr(section, limit) for section in sections) for limit in ("epochs", "minutes")}
    if 0 in [section.minutes for section in sections]:
        total["minutes"] = 0.0  # no limit
    return {f"{own[-1]}.{limit}": n for limit, n in total.items() if n != getattr(sections[0], limit)}


@dataclass(frozen=True)
class Study:
    """Rows that were run, where they are, and how."""

    config: Config
    workdir: Path
    command: str
    rows: Sequence[Row]
    dataset_sha256: str = ""

    @property
    def name(self) -> str:
        """<job>-<backbone>-<loss>-<recipe>, of its report; a part of the study says which."""
        c = self.config
        seeds = "" if c.study.seeds == StudySettings.seeds else f"-s{'+'.join(map(str, c.study.seeds))}"
        usual = all(self.path(row, s) == self.workdir / row.folder(c, s) for row in self.rows for s in c.study.seeds)
        other = "" if usual else f"-{digest(c, self.dataset_sha256)}"
        return f"{c.job}-{c.backbone}-{c.loss}-{c.recipe}{seeds}{'-part' if c.study.only else ''}{other}"

    def path(self, row: Row, seed: int) -> Path:
        usual = self.workdir / row.folder(self.config, seed)
        return place_of(usual, row.config(self.config, seed), self.dataset_sha256)

    def run(self, row: Row, seed: int) -> Run:
        """The run of a row, to train it or to work with what it has learned."""
        config = row.config(self.config, seed)
        return Run(config, self.path(row, seed), lambda *_: self.command)

    def group(self, row: Row) -> RunGroup:
        """All seeds of a row."""
        return RunGroup([self.path(row, seed) for seed in self.config.study.seeds])

    def train(self) -> None:
        """Runs what is not finished. Several processes may share a study, each with its own seeds."""
        reading = [row for row in self.rows if self.run(row, self.config.study.seeds[0]).method.reads_text]
        if reading:  # made first, so that every run sees it, and so that nothing is trained when it cannot be made
            _ = self.run(reading[0], self.config.study.seeds[0]).text.sha256
        for seed in self.config.study.seeds:
            for row in self.rows:
                say(f"\n{row.name}, seed {seed}: {self.path(row, seed)}")
                run = self.run(row, seed)
                _ = run.workdir  # refused before anything is written
                with locked(run.path):
                    if row.base is not None:
                        inherit(run, self.run(row.base, seed), row.shares)
                    run.train(run.method.phases)
                    run.write_table()
                jax.clear_caches()  # programs of one run serve no other, and their memory maps are limited

    def baselines(self) -> dict[str, dict[str, Any]]:
        """Test metrics of the baselines that hardly learn."""
        known: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            for name, metrics in self.group(row).results[0]["baselines"].items():
                if metrics is not None:
                    known[name] = metrics["test"]
        return known

    def page(self, title: str) -> Page:
        """A page that begins with how its results were made."""
        c = self.config
        results = [r for row in self.rows for r in self.group(row).results]
        seeds = f"seed{'s' if len(c.study.seeds) > 1 else ''} {', '.join(map(str, c.study.seeds))}"
        tables = [
            t for r in results if r["text_encoder"] for t in (r["text_encoder"], *r["text_encoder"].get("more", ()))
        ]
        encoders = {table.get("encoder", "-") for table in tables}
        page = Page(title)
        page.text(
            f"Dataset {c.dataset}, recipe `{c.recipe}`, loss `{c.loss}`, {seeds}; text encoder "
            f"{', '.join(sorted(encoders)) or '-'}, transform `{c.text.transform}`. Metrics are of the test split, in "
            "percent, over all items that the user has not met; each run is the checkpoint of its best epoch on the "
            "validation split. Made by"
        )
        page.code(self.command)
        machines = {r["machine"] for r in results if "machine" in r}
        made = {tuple(r["versions"].items()) for r in results}
        versions = "; or ".join(sorted(", ".join(f"{name} {number}" for name, number in v) for v in made))
        page.text(f"on {'; and '.join(sorted(machines)) or 'an unknown machine'}; {versions}.")
        return page


def gain(new: float, old: float) -> float:
    """Relative gain in percent; NaN over nothing."""
    return 100 * (new / old - 1) if old else float("nan")


def chance(p: float) -> str:
    """A p-value as people write it."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def inherit(run: Run, base: Run, phases: Sequence[str]) -> None:
    """Copies finished phases of `base` that `run` would repeat: best checkpoints, results and ranks."""
    results, theirs = run.workdir.results, base.workdir.results
    missing = [phase for phase in phases if phase not in theirs["phases"]]
    if missing:
        raise UserError(f"{base.workdir.path} has not finished {missing[0]}; run it first")
    wanted = [phase for phase in phases if phase not in results["phases"]]
    if not wanted:
        return
    parts: dict[str, tuple[Path, Path]] = {}
    for phase in wanted:
        folder, epoch = base.workdir.path / phase, str(theirs["phases"][phase]["best_epoch"])
        parts[phase] = folder / "metrics.jsonl", folder / "checkpoints" / epoch
        for part in parts[phase]:
            if not part.exists():
                raise UserError(f"{part} is missing; put it back, or remove {base.workdir.path} to train it again")
    known = read_ranks(base.path, base.workdir.of)
    ranks = {n: r for n, r in known.items() if n.partition("/")[2] not in theirs["phases"]}
    for phase, (log, best) in parts.items():
        to = run.workdir.path / phase
        run.workdir.write_config(phase)
        shutil.copy2(log, to)
        partial = to / "checkpoints.partial"
        for left in (partial, to / "checkpoints"):  # by a study that was killed here
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(best, partial / best.name)
        adopt(partial / best.name, run.workdir.of)
        os.replace(partial, to / "checkpoints")
        results["phases"][phase] = theirs["phases"][phase]
        summary = {n: v for n, v in theirs["phases"][phase].items() if n not in SPLITS}
        write_summary(to, summary, run.workdir.of)
        ranks |= {n: r for n, r in known.items() if n.partition("/")[2] == phase}
    last = results["phases"][phases[-1]]
    results |= {n: theirs[n] for n in ("baselines", "text_encoder")} | {n: last[n] for n in ("valid", "test")}
    run.workdir.write(ranks)


def as_job(rows: Callable[[Config], list[Row]], report: Callable[[Study], Page]) -> Callable[[Config, Path, str], None]:
    """A job: trains the rows of a configuration in a workdir, writes the report, and says where it is."""

    def job(config: Config, workdir: Path, command: str) -> None:
        check(config)
        first = Run(config, workdir, lambda *_: command)
        config = first.config
        found = rows(config)
        for name in config.study.only:
            check_choice("study.only", name, [row.name for row in found])
        if config.study.only:
            bases = [row.base for row in found if row.name in config.study.only]
            found = [row for row in found if row.name in config.study.only or row in bases]
        else:
            found = [row for row in found if row.usual]
        done = Study(config, workdir, command, found, first.dataset.fingerprint)
        done.train()
        page = report(done)
        groups = {row.name: done.group(row) for row in done.rows}
        about_lists(page, groups)
        add_curves(page, groups)
        say(f"\nreport: {page.write(workdir, done.name)}")

    return job


def about_lists(page: Page, groups: Mapping[str, RunGroup]) -> None:
    """Metrics of the lists of every row, where results have them."""
    shown = {name: of_lists([r["test"] for r in group.results]) for name, group in groups.items()}
    if not all(shown.values()):
        return
    page.heading("Lists")
    page.text(
        "The first ten of every user's list, a mean over seeds. Coverage is the share of all items that stand in some "
        "list; Gini is 0 where all items are shown alike and near 1 where few have all the places; novelty is the "
        "information of meeting an item in training; popularity is an item's training events; diversity is 1 minus the "
        "mean cosine of two titles of a list."
    )
    page.table(["", *next(iter(shown.values()))], [[name, *values.values()] for name, values in shown.items()])


def check(config: Config) -> None:
    """Raises UserError for what a study cannot do or would ignore."""
    if parallel.processes() > 1:
        raise UserError(
            f"the job {config.job} runs in one process; give several ones --config.study.seeds of their own"
        )
    for name in ("seed", "method"):
        if getattr(config, name) != getattr(Config(config.dataset), name):
            raise UserError(
                f"the job {config.job} sets config.{name} itself: leave it out of file and command line, and choose "
                "with --config.study.seeds and --config.study.only"
            )
    if config.job == "backbones" and config.backbone != "sasrec":
        raise UserError("the job backbones sets config.backbone itself; set --config.study.only")
    if config.job == "analyse" and config.study.only:
        raise UserError("the job analyse needs all of its rows: leave --config.study.only out")
