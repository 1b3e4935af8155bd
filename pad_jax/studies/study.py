"""What every study does: run its rows, seed by seed, and hand the finished ones to a report."""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pad_jax import parallel
from pad_jax.console import say
from pad_jax.data.dataset import SPLITS
from pad_jax.data.readers import READERS, reader_name
from pad_jax.errors import UserError
from pad_jax.methods.registry import METHODS
from pad_jax.pipeline import Run
from pad_jax.registry import SECTIONS
from pad_jax.report.groups import RunGroup
from pad_jax.report.page import Page, add_curves
from pad_jax.report.table import of_lists
from pad_jax.settings import Config, as_dict, check_choice, dotted, setting, with_fields
from pad_jax.studies.plan import Guess, Known, guess, known_in
from pad_jax.training.checkpoint import adopt
from pad_jax.version import VERSION
from pad_jax.workdir.identity import digest, locked, place_of, run_name
from pad_jax.workdir.results import read_ranks, read_results, write_summary


@dataclass(frozen=True)
class StudySettings:
    """What the jobs compare, backbones, ablate and analyse run."""

    seeds: tuple[int, ...] = setting((0, 1, 2), "three runs", "P", least=0)
    only: tuple[str, ...] = setting((), "names of rows; empty: all")
    datasets: tuple[str, ...] = setting(
        (), "config files whose data `compare` and `ablate` work on, everything else as here; empty: those of this one"
    )
    hours: float = setting(0.0, "no run is started that would end later; 0: no limit", unit="hours", least=0)
    trials: str = setting(
        "", "how many trials are behind each chosen setting, as pages over datasets say it; empty: docs/protocol.md"
    )

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
    left_out: tuple[str, ...] = ()  # names of rows that are not finished
    missing: str = ""  # its runs that are not finished, in words

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

    def phases(self, row: Row) -> list[str]:
        """The names of all phases of a row."""
        return [phase.name for phase in METHODS[row.method](row.config(self.config, 0)).phases]

    def is_done(self, row: Row, seed: int) -> bool:
        """Whether the run of a row is finished."""
        return self.phases(row)[-1] in read_results(self.path(row, seed)).get("phases", ())

    def guess(self, row: Row, known: Sequence[Known]) -> Guess:
        """How long a run of a row takes, but for the phases that it copies."""
        own = [name for name in self.phases(row) if name not in row.shares]
        return guess(row.config(self.config, 0), own, self.workdir, self.dataset_sha256, known)

    def make_text(self) -> None:
        """The text table, so that every run sees it, and so that nothing is trained when it cannot be made."""
        reading = [row for row in self.rows if self.run(row, self.config.study.seeds[0]).method.reads_text]
        if reading:
            _ = self.run(reading[0], self.config.study.seeds[0]).text.sha256

    def train(self, row: Row, seed: int) -> None:
        """Runs what is not finished of a row. Several processes may share a study, each with its own seeds."""
        say(f"\n{row.name}, seed {seed}: {self.path(row, seed)}")
        run = self.run(row, seed)
        _ = run.workdir  # refused before anything is written
        with locked(run.path):
            if row.base is not None:
                inherit(run, self.run(row.base, seed), row.shares)
            self.lend_baselines(run)
            run.train(run.method.phases)
            run.write_table()
        jax.clear_caches()  # programs of one run serve no other, and their memory maps are limited

    def lend_baselines(self, run: Run) -> None:
        """Gives a run the baselines of another one of this study: they are of the data and the text table alone."""
        mine = run.workdir.results
        for row, seed in ((row, seed) for row in self.rows for seed in self.config.study.seeds):
            path, config = self.path(row, seed), row.config(self.config, seed)
            theirs = {} if mine["baselines"] else read_results(path)
            if not theirs.get("baselines") or theirs["versions"]["pad_jax"] != VERSION:
                continue
            same = (config.data, config.eval) == (run.config.data, run.config.eval)
            if same and theirs["text_encoder"] == run.text.manifest:
                run.workdir.write_config(run.method.phases[0].name)
                mine |= {name: theirs[name] for name in ("baselines", "text_encoder")}
                run.workdir.write(of_baselines(theirs, read_ranks(path, theirs["of"])))

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
        tables = [
            t for r in results if r["text_encoder"] for t in (r["text_encoder"], *r["text_encoder"].get("more", ()))
        ]
        encoders = {table.get("encoder", "-") for table in tables}
        page = Page(title)
        page.text(
            f"Dataset {c.dataset}, recipe `{c.recipe}`, loss `{c.loss}`, {seeds_in_words(c.study.seeds)}; text encoder "
            f"{', '.join(sorted(encoders)) or '-'}, transform `{c.text.transform}`. Metrics are of the test split, in "
            "percent, over all items that the user has not met; each run is the last phase's checkpoint of its "
            "best epoch on the validation split, also where an earlier phase is better there. "
            + (f"Scores have the popularity dial at `{c.eval.popularity}`. " if c.eval.popularity else "")
            + "Made by"
        )
        page.code(self.command)
        machines = {r["machine"] for r in results if "machine" in r}
        made = {tuple(r["versions"].items()) for r in results}
        versions = "; or ".join(sorted(", ".join(f"{name} {number}" for name, number in v) for v in made))
        page.text(f"on {'; and '.join(sorted(machines)) or 'an unknown machine'}; {versions}.")
        if self.missing:
            page.text(unfinished([self]))
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
    ranks = of_baselines(theirs, known)
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


def of_baselines(results: Mapping[str, Any], ranks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of the ranks of a run those of its baselines, and what is known of users; not those of its phases."""
    names = {*results["baselines"], "target_count", "items_met"}
    return {name: values for name, values in ranks.items() if name.partition("/")[2] in names}


#: From the name of a config file to its configuration.
Read = Callable[[str], Config]
Rows = Callable[[Config], list[Row]]


def as_job(
    rows: Rows,
    report: Callable[[Study], Page],
    needs: Sequence[str] | None = (),
    front: Callable[[Sequence[Study]], Page] | None = None,
) -> Callable[[Config, Path, str, Read], None]:
    """A job: trains the rows of a configuration in a workdir, writes the report, and says where it is.

    `needs` are the names of rows without which there is no report; None: all of them. With `front`, what a page over
    several datasets begins with, it takes `study.datasets`, and has the runs of each in a folder of its name.
    """

    def page_of(study: Study) -> Page | None:
        if not study.rows or set(study.left_out if needs is None else needs) & set(study.left_out):
            return None
        page, groups = report(study), {row.name: study.group(row) for row in study.rows}
        about_lists(page, groups)
        add_curves(page, groups)
        return page

    def job(config: Config, workdir: Path, command: str, read: Read) -> None:
        check(config)
        if config.study.datasets and front is None:
            raise UserError(f"the job {config.job} works on one dataset: leave --config.study.datasets out")
        configs = [with_data(config, read(file)) for file in config.study.datasets]
        names = [c.dataset for c in configs]
        if len(set(names)) < len(names):
            raise UserError(f"config.study.datasets has a dataset twice: {', '.join(names)}")
        studies = [begin(c, workdir / c.dataset, command, rows) for c in configs]
        studies = studies or [begin(config, workdir, command, rows)]
        studies = finished(studies, train(studies))
        pages = [page_of(study) for study in studies]
        name = max((study.name for study in studies), key=len)  # with a hash where some run has one
        if not any(pages):
            say("\nno report yet: no seed is finished of the rows that it needs")
            return
        page = pages[0]
        if front is not None and names:
            page, name = front(studies), name.replace(config.job, f"{config.job}-{'+'.join(names)}", 1)
            for study, part in zip(studies, pages, strict=True):
                if part is None:
                    page.heading(study.config.dataset)
                    page.text(unfinished([study]))
                else:
                    page.include(part, study.config.dataset)
        assert page is not None
        say(f"\nreport: {page.write(workdir, name)}")

    return job


def is_of_data(name: str) -> bool:
    """Whether a field belongs to the data, which `study.datasets` takes from other files."""
    return name in ("dataset", "text.table") or name.startswith(("data.", "table."))


def with_data(config: Config, other: Config) -> Config:
    """The configuration on the data of another one, and nothing else of that."""
    own = READERS.entry(reader_name(other)).section
    fields = dotted(as_dict(other)).items()
    return with_fields(config, {n: v for n, v in fields if is_of_data(n) or (own and n.startswith(f"{own}."))})


def begin(config: Config, workdir: Path, command: str, rows: Rows) -> Study:
    """The study of a dataset, with those of the rows that `study.only` names, or with the usual ones."""
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
    return Study(config, workdir, command, found, first.dataset.fingerprint)


def train(studies: Sequence[Study]) -> bool:
    """Runs what is not finished, seed by seed over all datasets, a row behind the one that it copies phases of.

    Says first how long that will take. Returns False where `study.hours` ended it.
    """
    started, hours = time.monotonic(), studies[0].config.study.hours
    folders = {*(study.workdir for study in studies), *Path("runs").glob("*")}
    plan = [
        (study, row, seed)
        for seed in studies[0].config.study.seeds
        for study in studies
        for row in sorted(study.rows, key=lambda row: row.base is not None)
    ]
    done = [study.is_done(row, seed) for study, row, seed in plan]
    if not all(done):
        left = [run for run, is_done in zip(plan, done, strict=True) if not is_done]
        say("\n" + to_be_made(studies, left, len(plan), known_in(folders)))
    for study in studies:
        study.make_text()
    for (study, row, seed), is_done in zip(plan, done, strict=True):
        if hours and not is_done:
            minutes, spent = study.guess(row, known_in(folders)).minutes, (time.monotonic() - started) / 60
            if spent + np.nan_to_num(minutes) >= 60 * hours:
                about = "an unknown time" if np.isnan(minutes) else f"about {minutes:.1f} minutes"
                say(
                    f"\nstopped before {row.name}, seed {seed}, on {study.config.dataset}: it takes {about}, "
                    f"{spent:.1f} minutes are over, and study.hours={hours:g}; the same command goes on"
                )
                return False
        study.train(row, seed)
    return True


def to_be_made(
    studies: Sequence[Study], runs: Sequence[tuple[Study, Row, int]], planned: int, known: Sequence[Known]
) -> str:
    """Runs x minutes of each row on each dataset, and the sum, as aligned text."""
    names = list(dict.fromkeys(row.name for _, row, _ in runs))
    lines, minutes, unknown = [["", *(study.config.dataset for study in studies)]], 0.0, 0
    for name in names:
        line = [name]
        for study in studies:
            rows = [row for of, row, _ in runs if of is study and row.name == name]
            each = study.guess(rows[0], known) if rows else None
            line.append(f"{len(rows)} x {each}" if rows else "-")
            if each is not None and np.isnan(each.minutes):
                unknown += len(rows)
            elif each is not None:
                minutes += len(rows) * each.minutes
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    total = f"{minutes / 60:.1f} hours" + (f", and {unknown} runs of unknown length" if unknown else "")
    about = (
        "runs x minutes of each, by finished runs of the same row; ~: of the same method with other settings or data"
    )
    return "\n".join([f"{len(runs)} of {planned} runs are to be made ({about})", *shown, f"in all: {total}"])


def finished(studies: Sequence[Study], all_of_them: bool) -> list[Study]:
    """The studies, or where not `all_of_them` is done what can be reported: the seeds that every row has on every
    dataset; where there is none, those rows that have the first."""
    seeds = studies[0].config.study.seeds
    if all_of_them:
        return list(studies)
    undone = [{s: [row for row in study.rows if not study.is_done(row, s)] for s in seeds} for study in studies]
    kept = tuple(s for s in seeds if not any(lacking[s] for lacking in undone)) or seeds[:1]
    found = []
    for study, lacking in zip(studies, undone, strict=True):
        by_rows: dict[str, list[int]] = {}
        for s, rows in lacking.items():
            listed = "every row" if len(rows) == len(study.rows) else ", ".join(row.name for row in rows)
            by_rows.setdefault(listed, []).append(s)
        told = [f"{seeds_in_words(of)}: {listed}" for listed, of in by_rows.items() if listed]
        left_out = tuple(row.name for s in kept for row in lacking[s])
        rows = [row for row in study.rows if row.name not in left_out]
        config = with_fields(study.config, {"study.seeds": kept})
        missing = f"{study.config.dataset}, {'; '.join(told)}" if told else ""
        found.append(replace(study, config=config, rows=rows, left_out=left_out, missing=missing))
    return found


def unfinished(studies: Sequence[Study]) -> str:
    """What `study.hours` has left out of a page, in words; empty where nothing is missing."""
    missing = ". ".join(study.missing for study in studies if study.missing)
    if not missing:
        return ""
    seeds = seeds_in_words(studies[0].config.study.seeds)
    return (
        f"`study.hours` ended the study before all was trained, and this is of {seeds} alone. Not finished: {missing}."
    )


def seeds_in_words(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


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
    if config.start or not config.data.holdout:
        raise UserError(
            f"the job {config.job} compares runs from fresh parameters on held-out events: leave config.start "
            "and config.data.holdout out"
        )
    if config.job == "backbones" and config.backbone != "sasrec":
        raise UserError("the job backbones sets config.backbone itself; set --config.study.only")
    if config.job == "analyse" and config.study.only:
        raise UserError("the job analyse needs all of its rows: leave --config.study.only out")
