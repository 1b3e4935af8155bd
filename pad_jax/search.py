"""The job `search`: settings of a method chosen by Optuna on the validation split."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from pad_jax import parallel, sealed
from pad_jax.console import say
from pad_jax.data.dataset import Dataset, Split
from pad_jax.errors import UserError
from pad_jax.pipeline import Run
from pad_jax.registry import SECTIONS
from pad_jax.report.page import Page
from pad_jax.sealed import DamagedError
from pad_jax.settings import Config, as_dict, dotted, setting, specs, with_fields
from pad_jax.training.loop import DivergedError, Epoch
from pad_jax.workdir.identity import changes_results, home, locked, run_name

if TYPE_CHECKING:
    import optuna

STARTUP, WARMUP = 5, 3  # trials and epochs (of the first phase) that are never pruned
STEPS = 10**6  # the step of an epoch is this times the number of its phase, plus the epoch: phases have fewer
INSTALL = 'the job search needs Optuna: pip install "pad_jax[search]"'
#: Of what changes results, fields that would make trials incomparable, or their best one a matter of luck.
_FIXED = ("recipe", "seed", "start", "train.select")
_OF_DATA = ("data.length", "data.windows", "data.buckets")


@dataclass(frozen=True)
class SearchSettings:
    """The job `search`."""

    space: tuple[str, ...] = setting(
        (), "what is tried: NAME=LOW..HIGH, NAME=LOW..HIGH log, or NAME=A|B|C each, NAME being any other setting"
    )
    trials: int = setting(20, "in all, those of an earlier call of the same search among them", least=1, below=10**6)
    seed: int = setting(0, "of the sampler; every trial trains under the one `seed`", least=0)


SECTIONS.register("search", SearchSettings)


@dataclass(frozen=True)
class Axis:
    """A field and its values: `choices`, or else all from `low` to `high`."""

    name: str
    choices: tuple[Any, ...] = ()
    low: int | float = 0
    high: int | float = 0
    log: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.choices or (self.low, self.high)

    def suggest(self, trial: "optuna.trial.Trial") -> Any:
        """Its value in a trial; one that the trial has already stays."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def read_space(config: Config) -> list[Axis]:
    """The axes of `search.space`. Raises UserError for what is none, naming it."""
    axes = [read_axis(config, text) for text in config.search.space]
    names = [axis.name for axis in axes]
    if not axes:
        raise UserError(
            "config.search.space is empty: set it to what is to be tried, as "
            "--config.search.space=\"('pretrain.learning_rate=1e-4..1e-2 log','model.dropout=0.1|0.3|0.5')\""
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"config.search.space has {twice[0]} twice")
    return axes


def read_axis(config: Config, text: str) -> Axis:
    """One of `search.space`: every end or choice is a value that the field takes, under the other settings of `config`.

    Raises UserError for anything else.
    """
    where = f"config.search.space: {text!r}"
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not values:
        raise UserError(f"{where} must be NAME=LOW..HIGH, NAME=LOW..HIGH log, or NAME=A|B|C")
    if name not in specs():
        _check(where, config, name, 0)
    fixed = name.startswith("eval.") or (name.startswith("data.") and name not in _OF_DATA) or name in _FIXED
    if fixed or not changes_results(name):
        raise UserError(f"{where}: trials that differ in {name} cannot be compared by their validation value")
    kind = specs()[name][0]
    if kind not in (int, float, str, bool):
        raise UserError(f"{where}: {name} is no single value")
    if ".." in values:
        low, _, high = values.removesuffix(" log").partition("..")
        ends = (_number(where, kind, end) for end in (low, high))
        axis = Axis(name, (), next(ends), next(ends), values.endswith(" log"))
        if not axis.low < axis.high or (axis.log and axis.low <= 0):
            what = "a log range begins above 0" if axis.log and axis.low <= 0 else "the lower end comes first"
            raise UserError(f"{where}: {what}")
    else:
        axis = Axis(name, tuple(_value(where, kind, value.strip()) for value in values.split("|")))
        if len(set(axis.choices)) < max(2, len(axis.choices)):
            raise UserError(f"{where} must name two choices or more, each once")
    for end in axis.ends:
        _check(where, config, name, end)
    return axis


def _check(where: str, config: Config, name: str, value: Any) -> None:
    try:
        with_fields(config, {name: value})
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _number(where: str, kind: type, text: str) -> Any:
    if kind not in (int, float):
        raise UserError(f"{where}: a range is of numbers; write choices as A|B|C")
    return _value(where, kind, text.strip())


def _value(where: str, kind: type, text: str) -> Any:
    truth = {"True": True, "False": False}
    try:
        return truth[text] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        names = {int: "a whole number", float: "a number", bool: "True or False"}
        raise UserError(f"{where}: {text!r} is not {names[kind]}") from error


class Trial(Run):
    """A run that knows no test split and no baselines, and may be pruned after any epoch."""

    def __init__(self, config: Config, workdir: Path, dataset: Dataset, trial: "optuna.trial.Trial"):
        super().__init__(config, workdir, lambda job, _: f"the job {job}", (self.judge,))
        self._dataset, self._trial = dataset, trial
        self._reported = trial.study.trials[trial.number].intermediate_values

    @property
    def dataset(self) -> Dataset:
        return self._dataset

    @cached_property
    def splits(self) -> dict[str, Split]:
        return {"valid": self.dataset.split("valid", self.config.data.length)}

    def baselines(self) -> None:
        """They do not depend on what is searched for."""

    def judge(self, epoch: Epoch) -> None:
        """Tells Optuna, and ends the trial where that says so. An epoch is compared with the same one of its phase."""
        import optuna

        names = [phase.name for phase in self.method.phases]
        place = names.index(epoch.phase)
        if self.method.phases[place].by_loss:  # it trains no recommender
            return
        step = STEPS * place + epoch.epoch
        if step not in self._reported:  # a killed run may have said it
            self._trial.report(epoch.valid[self.config.train.select], step)
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"{epoch.phase}, epoch {epoch.epoch}")

    def epochs(self) -> int:
        """So far, of all phases."""
        logs = [self.path / phase.name / "metrics.jsonl" for phase in self.method.phases]
        return sum(len(log.read_text().splitlines()) for log in logs if log.exists())

    def value(self) -> float:
        """Of the phase that would be served."""
        phase = self.to_serve(self.method.phases)
        return float(self.workdir.results["phases"][phase.name]["valid"][self.config.train.select])


def search(config: Config, workdir: Path | None, command: str) -> None:
    """Runs trials until there are `search.trials`, and reports them; a search that was stopped goes on.

    Trials are kept in `search.db` of the workdir; what one has trained is there while it runs. Trial n is drawn by TPE
    from `search.seed`, n and the trials before, and pruned after an epoch in which its best validation value is below
    the median of the others' at that epoch.

    Args:
        config: of the run that settings are searched for.
        workdir: of the search; None: beside the runs of the dataset.
        command: how this job was called, for the report.

    Raises UserError for a space that cannot be searched, without Optuna, and in the workdir of another search.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(INSTALL) from error
    if parallel.processes() > 1:
        raise UserError("the job search is work for one process: leave --processes out")
    if not config.data.holdout:
        raise UserError("the job search chooses on the validation split: leave config.data.holdout=False out")
    axes = read_space(config)
    first = Run(config, workdir, lambda job, _: f"the job {job}")
    config = first.config
    folder = workdir or place_of_search(config)
    of = identity(config, first.dataset)
    with locked(folder), _one_line(folder):
        study = _study(folder, of)
        for left in folder.glob("trial-*"):  # of trials that were told to the end
            if left.name not in {f"trial-{t.number}" for t in study.trials if not t.state.is_finished()}:
                shutil.rmtree(left, ignore_errors=True)
        while len(done := [t for t in study.trials if t.state.is_finished()]) < config.search.trials:
            running = [t for t in study.trials if not t.state.is_finished()]
            number = running[0].number if running else len(done)
            study.sampler = optuna.samplers.TPESampler(
                seed=int(np.random.SeedSequence([config.search.seed, number]).generate_state(1)[0])
            )
            # Optuna has no public way to go on with a trial that a killed process left.
            trial = optuna.trial.Trial(study, running[0]._trial_id) if running else study.ask()
            _do(config, folder, first.dataset, study, trial, {axis.name: axis.suggest(trial) for axis in axes})
            jax.clear_caches()  # programs of one trial serve no other, and their memory maps are limited
        _report(config, folder, study, axes, command)


def place_of_search(config: Config) -> Path:
    """Where the search of a configuration is, unless --workdir says."""
    return home(config) / f"search-{run_name(config)}"


def identity(config: Config, dataset: Dataset) -> str:
    """64 letters for all that trials have in common; not how many they are."""
    ours = {n: v for n, v in dotted(as_dict(config)).items() if changes_results(n) or n.startswith("search.")}
    del ours["search.trials"]
    return sealed.digest([ours, dataset.fingerprint])


def _study(folder: Path, of: str) -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{(folder / 'search.db').absolute()}",
            study_name="search",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARMUP),
            load_if_exists=True,
        )
    except RuntimeError as error:  # of another version of Optuna
        raise _unusable(folder, error) from error
    if study.user_attrs.setdefault("of", of) != of:
        raise UserError(f"{folder} holds a search of another space, other settings or data; use a new --workdir")
    study.set_user_attr("of", of)
    return study


def _do(
    config: Config,
    folder: Path,
    dataset: Dataset,
    study: "optuna.Study",
    trial: "optuna.trial.Trial",
    values: Mapping[str, Any],
) -> None:
    """Trains a trial and tells the study of its end."""
    import optuna

    say(f"\ntrial {trial.number + 1} of {config.search.trials}: " + _told(values))
    run = Trial(with_fields(config, {"job": "all"} | dict(values)), folder / f"trial-{trial.number}", dataset, trial)
    state, value = optuna.trial.TrialState.COMPLETE, None
    try:
        with locked(run.path):
            run.train(run.method.phases)
            value = run.value()
    except optuna.TrialPruned as pruned:
        state = optuna.trial.TrialState.PRUNED
        trial.set_user_attr("why", f"pruned in {pruned}")
    except DivergedError as error:
        state = optuna.trial.TrialState.FAIL
        trial.set_user_attr("why", "failed: not finite")
        say(f"trial {trial.number + 1} failed: {error}")
    failed = state is optuna.trial.TrialState.FAIL  # in an epoch that is in no log
    trial.set_user_attr("epochs", run.epochs() + failed)
    study.tell(trial, value, state)
    shutil.rmtree(run.path, ignore_errors=True)


def _report(config: Config, folder: Path, study: "optuna.Study", axes: Sequence[Axis], command: str) -> None:
    """The table of trials and the best settings, on the console and as a page."""
    trials, select = study.trials, config.train.select
    rows = []
    for trial in trials:
        value = trial.value if trial.value is not None else max(trial.intermediate_values.values(), default=None)
        cells = [str(trial.number + 1), *(_shown(trial.params[axis.name]) for axis in axes)]
        cells += ["-" if value is None else f"{100 * value:.2f}", str(trial.user_attrs["epochs"])]
        rows.append([*cells, trial.user_attrs.get("why", "")])
    ends = [trial.user_attrs.get("why", "whole").partition(" ")[0].rstrip(":") for trial in trials]
    counts = ", ".join(f"{ends.count(end)} {end}" for end in ("whole", "pruned", "failed") if ends.count(end))
    page = Page(f"Search: {config.method} on {config.dataset}")
    page.text(
        f"{len(trials)} trials ({counts}), drawn by TPE (search.seed {config.search.seed}), each trained under seed "
        f"{config.seed}. The value is {select} on validation, in percent, of the phase that would be served; the test "
        "split was not looked at. The best of many is lucky, too: what it is worth, the test split of a run with its "
        "settings says."
    )
    page.code(command)
    header = ["trial", *(axis.name for axis in axes), f"best {select}", "epochs", ""]
    page.table(header, rows)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in [header, *rows]]
    say("\n" + "\n".join(line.rstrip() for line in lines) + f"\n\n{len(trials)} trials ({counts})")
    if "whole" in ends:
        best, value = study.best_trial, study.best_value
        flags = " ".join(f"--config.{name}={_shown(value)}" for name, value in best.params.items())
        page.heading("Best settings")
        page.text(f"Of trial {best.number + 1}, {select} {100 * value:.2f} on validation:")
        page.code(flags)
        say(f"best, trial {best.number + 1}: {select} {100 * value:.2f} on validation, with\n{flags}")
    say(f"report: {page.write(folder, 'search')}")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


@contextlib.contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    """Whatever is wrong with the file of trials is a UserError."""
    import optuna
    import sqlalchemy

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: Exception) -> DamagedError:
    reason = str(error).partition("\n")[0][:120]
    return DamagedError(folder / "search.db", f"cannot be used ({reason})", "put it back, or use a new --workdir")
