"""A method on a dataset in a workdir: what it works on, and what can be done with it."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Int

from pad_jax import parallel
from pad_jax.batching.device import DeviceData, device_data
from pad_jax.console import say
from pad_jax.data import readers
from pad_jax.data.dataset import SPLITS, Dataset, Split
from pad_jax.errors import UserError
from pad_jax.evaluation import popularity
from pad_jax.evaluation.baselines import ranked_baselines
from pad_jax.evaluation.lists import Lists
from pad_jax.evaluation.metrics import summarize
from pad_jax.evaluation.ranking import Ranked, lister, ranker
from pad_jax.files import write_atomically
from pad_jax.losses.recommendation import LOSSES
from pad_jax.methods.registry import METHODS, method_of
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import Scorer
from pad_jax.report import table
from pad_jax.sealed import DamagedError
from pad_jax.serving import Model, load
from pad_jax.serving.artifact import Artifact, Text, identity_of
from pad_jax.serving.earlier import Earlier
from pad_jax.settings import Config, as_before, canonical, check_choice, dotted
from pad_jax.text.source import TextSource
from pad_jax.training import loop, memory
from pad_jax.training.checkpoint import Checkpoints
from pad_jax.training.parameters import split, start
from pad_jax.training.phase import Method, Phase
from pad_jax.training.step import merge
from pad_jax.workdir.identity import Workdir, changes_results, home, place_of, read_config, rules_of, run_name
from pad_jax.workdir.results import read_results, write_summary


class Run:
    """Everything is read when first needed.

    Without a `workdir` it is the one of the dataset and the configuration. `command` tells the user how a job is run.
    `base` is the finished run of the same data whose method is trained here without a holdout.
    `callbacks` are called after each epoch, see `loop.train`.
    """

    def __init__(
        self,
        config: Config,
        workdir: Path | None,
        command: Callable[[str, Path | None], str],
        callbacks: Sequence[loop.Callback] = (),
        base: "Run | None" = None,
    ):
        self._config, self.tell, self._path, self._callbacks, self._base = config, command, workdir, callbacks, base

    @cached_property
    def config(self) -> Config:
        """With what is chosen from the data."""
        return self._config if self._config.data.length else readers.settled(self._config, self.dataset)

    @cached_property
    def path(self) -> Path:
        """Of the workdir."""
        usual = home(self._config) / run_name(self._config)
        return self._path or place_of(usual, self.config, self.dataset.fingerprint)

    @cached_property
    def rules(self) -> int:
        return rules_of(self.path) or METHODS.entry(self._config.method).rules

    @cached_property
    def method(self) -> Method:
        return method_of(self.config, self.rules)

    def command(self, job: str) -> str:
        """The command line of a job with this workdir."""
        return self.tell(job, self.path)

    @cached_property
    def workdir(self) -> Workdir:
        text_sha256 = self.text.sha256 if self.method.reads_text else None
        repairs = [phase.name for phase in self.method.phases] if self.config.job == "evaluate" else []
        start = self.earlier.sha256 if self.earlier else None
        return Workdir(self.path, self.config, self.dataset.fingerprint, text_sha256, self.rules, repairs, start)

    @cached_property
    def earlier(self) -> Earlier | None:
        """What training begins with, where `config.start` names it."""
        if not self.config.start:
            return None
        found = Earlier.load(self.config.start)
        found.check(self.config, self.method)
        return found

    @cached_property
    def dataset(self) -> Dataset:
        started = time.monotonic()
        data = readers.load(self._config)
        say(
            f"{data.name}: {data.users:,} users, {data.items:,} items, {len(data.events):,} events "
            f"({time.monotonic() - started:.1f} s)" + (f"; {data.note}" if data.note else "")
        )
        if data.account:
            say(f"{data.name}: {data.account}")
        if not data.holdout:
            say(f"{data.name}: nothing is held out (data.holdout), {data.counts.sum():,} events train")
        return data

    @cached_property
    def text(self) -> TextSource:
        known = self.earlier.artifact.text if self.earlier and self.method.reads_text else Text()
        needed = self.method.name if self.method.reads_text else ""
        return TextSource(self.config, self.dataset, needed, known if known.width else None)

    @cached_property
    def data(self) -> DeviceData:
        """What training needs of dataset and text, on every device."""
        config = self.config
        text = self.text.for_training() if self.method.reads_text else None
        data = device_data(self.dataset, config.data, text, LOSSES[config.loss].needs == "negatives")
        for name in self.method.experts:
            if EXPERTS[name].reads_text:
                EXPERTS[name].check_text(config, data.text.shape[1])

        def made(names: Iterable[str]) -> dict[str, Any]:
            return {name: EXPERTS[name].arrays(config, self.dataset, text) for name in names}

        learned = [name for name in self.method.experts if EXPERTS[name].kept]
        arrays = made(name for name in self.method.experts if name not in learned)
        if learned:
            arrays |= self.workdir.once("arrays", lambda: made(learned))
        return parallel.replicate(data._replace(arrays={name: own for name, own in arrays.items() if own}))

    def data_of(self, phase: Phase) -> DeviceData:
        """What a phase trains on."""
        if not phase.held_out or not self.config.data.holdout:
            return self.data
        split = self.splits["valid"]
        windows = np.concatenate([split.inputs, split.target[:, None]], axis=1)
        windows, ends = parallel.replicate((windows, np.zeros((len(windows), 2), np.int32)))
        return self.data._replace(windows=windows, gap_ends=ends)

    @cached_property
    def splits(self) -> dict[str, Split]:
        """Those that the run is judged on; none without `data.holdout`."""
        if not self.config.data.holdout:
            return {}
        return {name: self.dataset.split(name, self.config.data.length) for name in SPLITS}

    def metrics(self, ranks: np.ndarray, name: str, listed: Int[np.ndarray, "S k"] | None = None) -> dict[str, Any]:
        """Of a split, with the ranks of its targets and, where they were made, the lists of its users."""
        split, counts = self.splits[name], self.dataset.counts
        lists = None
        if listed is not None:
            table = self.text.table
            lists = Lists(listed, counts, split.targets, None if table is None or table.lexicon else table.rows)
        return summarize(self.config, ranks, split.target, counts, split.history.lengths, lists)

    def curve(
        self, name: str, betas: Sequence[float], over: np.ndarray, shown: Iterable[str] = popularity.SHOWN
    ) -> list[dict[str, Any]]:
        """`popularity.curve` of a split, with the ranks [S, G] of its targets under each of G betas."""
        points = zip(betas, over.T, strict=True)
        return popularity.curve(points, self.splits[name].target, self.dataset.counts, shown)

    def prepare(self) -> None:
        """Reads the dataset and says what is in it."""
        say(readers.summary(self.dataset, self.config))

    def train(self, phases: Sequence[Phase]) -> None:
        served = ["best", "last", *(phase.name for phase in self.method.phases)]
        check_choice("eval.serve", self.config.eval.serve, served)
        for phase in phases:
            self.train_phase(phase)

    def train_phase(self, phase: Phase) -> None:
        """Trains a phase to its end and evaluates its best checkpoint; a phase that is done is left alone."""
        finished = self.workdir.results["phases"]
        if phase.name in finished:
            say(f"{phase.name}: finished before, best epoch {finished[phase.name]['best_epoch']}")
            if popularity.asked(finished[phase.name]) != self.config.eval.popularity:
                self.record(phase, self.best(phase), finished[phase.name])
            return
        self.check_rules()
        parallel.check_batch(self.config.train.batch, self.config.mmd.group)
        scorer, params, frozen = self.initial(phase)
        self.workdir.write_config(phase.name)
        self.baselines()
        rank = ranker(scorer, self.config.eval.batch)

        def evaluate(params: dict[str, Any]) -> dict[str, Any]:
            return self.metrics(rank(params, self.data, self.splits["valid"]), "valid")

        directory = self.workdir.path / phase.name
        sizes = {part: sum(x.size for x in jax.tree.leaves(tree)) for part, tree in merge(params, frozen).items()}
        sizes.pop("critics", None)  # no part of what is ranked with
        judge = evaluate if self.config.data.holdout else None
        with self._checkpoints(phase) as checkpoints:
            best, summary = loop.train(
                self.config,
                phase,
                scorer,
                params,
                frozen,
                self.data_of(phase),
                judge,
                directory / "metrics.jsonl",
                checkpoints,
                self._callbacks,
            )
        summary |= {"parameters": sum(sizes.values())}
        if parallel.is_main():
            write_summary(directory, summary, self.workdir.of)
        self.record(phase, best, summary)

    def check_rules(self) -> None:
        """Raises UserError for a run that an earlier version made of a method that means something else today."""
        if self.rules != (today := METHODS.entry(self.config.method).rules):
            raise UserError(
                f"{self.path} was made under rules {self.rules} of the method {self.config.method!r}, which "
                f"has rules {today} now: it can be evaluated, reported and served; train in a new --workdir"
            )

    def initial(self, phase: Phase) -> tuple[Scorer, dict[str, Any], dict[str, Any]]:
        """The scorer of a phase, and the parameters it starts with: trained and kept."""
        scorer = phase.scorer(self.config)
        key = jax.random.fold_in(jax.random.key(self.config.seed), 0)
        make = partial(phase.fresh, self.config, items=self.dataset.items, text_width=self.data.text.shape[1])
        memory.check_parameters(jax.eval_shape(make, key))
        fresh = make(key)
        previous = None
        if phase.start:
            before = self.method.phases[self.method.phases.index(phase) - 1]
            if before.name not in self.workdir.results["phases"]:
                raise UserError(
                    f"{phase.name} starts from the checkpoint of {before.name}, which is not finished in "
                    f"{self.workdir.path}; make it with: {self.command(before.name)}"
                )
            previous = self.best(before)
        params, carried = start(phase, self.config, fresh, previous, self.data), set[str]()
        if self.earlier:
            if phase is self.method.phases[0]:
                say(self.earlier.told(self.method, self.dataset.item_ids))
            scale = self.config.train.start_scale
            params, carried = self.earlier.begin(self.method, phase, params, self.dataset.item_ids, scale)
        trained, kept = split(params, phase.keep)
        if phase.held_out and not self.config.data.holdout:
            trained = self._not_learned(phase, trained, carried)
        return scorer, trained, kept

    def _not_learned(self, phase: Phase, trained: dict[str, Any], carried: set[str]) -> dict[str, Any]:
        """What stands for the parameters that a phase would learn from validation events, which all train now."""
        if self._base is None and not set(flatten_dict(trained, sep="/")) <= carried:
            raise UserError(
                f"{phase.name} of method {self.config.method} learns from validation events, and data.holdout=False "
                "leaves none: train with the holdout and then do the job refit, or --config.start from such a run"
            )
        whose = self.config.start if self._base is None else self._base.path
        say(f"{phase.name}: learns from validation events, which all train here; it stays what {whose} has learned")
        return trained if self._base is None else self._base.checkpoint(phase)[0]

    def checkpoint(self, phase: Phase) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a finished phase has trained and kept, at its best epoch."""
        with self._checkpoints(phase) as checkpoints:
            return checkpoints.parameters(self.workdir.results["phases"][phase.name]["best_epoch"])

    def _checkpoints(self, phase: Phase) -> Checkpoints:
        return Checkpoints(self.workdir.path / phase.name / "checkpoints", self.workdir.of)

    def best(self, phase: Phase) -> dict[str, Any]:
        """All parameters of a finished phase's best checkpoint."""
        return merge(*self.checkpoint(phase))

    def record(self, phase: Phase, params: dict[str, Any], summary: dict[str, Any]) -> None:
        """Ranks both splits, lists for them, and writes results and ranks."""
        beta, ranked = self.ranked(phase, params)
        metrics = {}
        for name, (found, curve) in ranked.items():
            metrics[name] = self.metrics(found.ranks, name, found.items) | {"by_popularity": curve}
        results = self.workdir.results
        kept = {n: v for n, v in summary.items() if n not in metrics}
        about = {"popularity": {"asked": self.config.eval.popularity, "beta": beta}}
        results["phases"][phase.name] = metrics | kept | about
        known = {name: of.keys() for name, of in results["phases"].items()}
        done = [p for p in self.method.phases if p.name in known and metrics.keys() <= known[p.name]]
        results |= {name: results["phases"][done[-1].name][name] for name in metrics}
        results |= {"served": self.to_serve(done).name, "until": self.dataset.until}
        results |= {} if self.config.data.holdout else {"holdout": False}
        self.workdir.write({f"{name}/{phase.name}": found.ranks for name, (found, _) in ranked.items()})

    def ranked(self, phase: Phase, params: dict[str, Any]) -> tuple[float, dict[str, tuple[Ranked, list[dict]]]]:
        """The beta of the popularity dial, and by split ranks and lists under it and the curve over all betas."""
        config, counts, splits = self.config, self.dataset.counts, self.splits
        if not splits:
            return popularity.chosen(config.eval.popularity, (), config.train.select), {}
        rank = lister(phase.scorer(config), config.eval.batch, min(max(config.eval.ks), self.dataset.items))
        some = popularity.sample(splits["valid"])

        def at(beta: float, part: Split, betas: Sequence[float]) -> Ranked:
            offset = popularity.offset(beta, counts) if beta else None
            return rank(params, self.data, part, [some, *splits.values()], popularity.offset(betas, counts), offset)

        beta = 0.0 if config.eval.popularity == "valid" else config.eval.popularity
        deviation = at(beta, some, [0.0] * len(popularity.GRID)).deviation
        betas = popularity.betas(deviation, counts)
        found = {name: at(beta, part, betas) for name, part in splits.items()}
        shown = (*popularity.SHOWN, config.train.select)
        curves = {name: self.curve(name, betas, of.over, shown) for name, of in found.items()}
        chosen = popularity.chosen(config.eval.popularity, curves["valid"], config.train.select)
        if chosen != beta:
            found = {name: at(chosen, part, betas) for name, part in splits.items()}
        return chosen, {name: (of, curves[name]) for name, of in found.items()}

    def to_serve(self, phases: Sequence[Phase]) -> Phase:
        """Which of finished phases `eval.serve` means; of equally good ones the later."""
        finished, select, serve = self.workdir.results["phases"], self.config.train.select, self.config.eval.serve
        if serve != "best" or not self.config.data.holdout:
            return next((phase for phase in phases if phase.name == serve), phases[-1])
        judged = [phase for phase in phases if not phase.by_loss] or phases
        return max(reversed(judged), key=lambda phase: finished[phase.name]["valid"][select])

    @property
    def is_finished(self) -> bool:
        """Whether its last phase is."""
        return self.method.phases[-1].name in self.workdir.results["phases"]

    @property
    def served(self) -> Phase:
        """The phase that `model/` is of. Raises UserError before the last one is finished."""
        results, last = read_results(self.path), self.method.phases[-1]
        if last.name not in results.get("phases", ()):
            raise UserError(f"{self.path} holds no trained model; train it with: {self.command('all')}")
        name = results.get("served", last.name)  # earlier versions served the last
        return next(phase for phase in self.method.phases if phase.name == name)

    def export(self) -> None:
        """What `pad_jax.load` reads: the phase that is best on validation, unless it is there already."""
        phase, folder, last = self.served, self.path / "model", self.method.phases[-1]
        finished, select = self.workdir.results["phases"], self.config.train.select
        if phase is not last and self.config.eval.serve == "best" and self.config.data.holdout:
            better, worse = (f"{p.name} ({100 * finished[p.name]['valid'][select]:.2f} %)" for p in (phase, last))
            say(f"served: {better}, which is above {worse} in {select} on validation")
        identity = self.model_identity()
        same = self._holds(folder, identity)
        parallel.wait("model")  # all processes have looked before one writes
        if same:
            return
        self.artifact(phase).save(folder, identity)

    def artifact(self, phase: Phase) -> Artifact:
        """The model of a finished phase's best checkpoint, its popularity dial where the phase was ranked."""
        text = self.text.served() if phase.reads_text or phase.text else Text()
        beta = popularity.beta_of(read_results(self.path)["phases"][phase.name])
        names = self.dataset.item_ids, self.dataset.titles
        return Artifact.of(phase.scorer(self.config), self.best(phase), self.data, *names, text, beta)

    def model_identity(self) -> dict[str, Any]:
        """What `model/` is to be of, as the workdir has it."""
        phase = self.served
        found = read_results(self.path)["phases"][phase.name]
        of = {"best_epoch": found["best_epoch"], "phase": phase.name, "popularity": popularity.beta_of(found)}
        return self._what_matters(read_config(self.path) | of)

    def is_model(self, identity: dict[str, Any]) -> bool:
        """Whether `model/` is of this identity."""
        found = identity_of(self.path / "model")
        return found is not None and not found.get("saved") and self._what_matters(found) == identity

    def _what_matters(self, identity: dict[str, Any]) -> dict[str, Any]:
        config = as_before() | dotted(canonical(identity["config"]))
        # of models that earlier versions made
        last = {"phase": self.method.phases[-1].name, "rules": 1, "of": "", "popularity": 0.0, "start_sha256": None}
        found = last | identity | {"config": {n: v for n, v in sorted(config.items()) if changes_results(n)}}
        return json.loads(json.dumps(found))

    def _holds(self, folder: Path, identity: dict[str, Any]) -> bool:
        """Whether a folder has the model of this identity, whole, in the format and with the titles of today."""
        try:
            found = Artifact.load(folder) if self.is_model(identity) else None
        except DamagedError as error:
            say(f"{error.path} {error.wrong}: made again")
            return False
        return found is not None and found.verified and list(found.titles) == list(self.dataset.titles)

    def model(self) -> Model:
        """The model that `load` gives; where it is missing, damaged or another one, it is made first, which needs the
        data. Its popularity dial is where `eval.popularity` has it, which may be elsewhere than when it was made."""
        found = self._model()
        phase, select = read_results(self.path)["phases"][self.served.name], self.config.train.select
        curve = phase.get("valid", {}).get("by_popularity", ())
        beta = popularity.chosen(self.config.eval.popularity, curve, select)
        if beta == found.artifact.popularity:
            return found
        return Model(replace(found.artifact, popularity=beta), found.histories, found.workdir)

    def _model(self) -> Model:
        if self.is_model(self.model_identity()):
            try:
                return load(self.path)
            except DamagedError as error:
                say(f"{error.path} {error.wrong}: made again")
        self.export()
        return load(self.path)

    def evaluate(self) -> None:
        """Ranks again with the best checkpoint of every finished phase."""
        results = self.workdir.results
        done = [phase for phase in self.method.phases if phase.name in results["phases"]]
        if not done:
            raise UserError(f"{self.workdir.path} holds no finished phase; train it with: {self.command('all')}")
        results["baselines"] = {}
        self.baselines()
        for phase in done:
            self.record(phase, self.best(phase), results["phases"][phase.name])

    def baselines(self) -> None:
        """The baselines that hardly learn: once in a workdir, again when there is another text table."""
        results, table, manifest = self.workdir.results, self.text.table, self.text.manifest
        if not self.splits:
            results["text_encoder"] = manifest
            return
        known = results["baselines"]
        if not parallel.is_main() or (known and results["text_encoder"] == manifest):
            return
        say("baselines")
        ranks = {f"{name}/target_count": self.dataset.counts[part.target] for name, part in self.splits.items()}
        ranks |= {f"{name}/items_met": part.history.lengths for name, part in self.splits.items()}
        entries: dict[str, Any] = {}
        for scorer, found in ranked_baselines(self.dataset, self.splits, table and table.rows).items():
            if found is None:
                entries[scorer] = None
                continue
            curves = {name: self.curve(name, found.betas, over) for name, over in found.over.items()}
            made = {name: self.metrics(values, name) for name, values in found.ranks.items()}
            entries[scorer] = {name: metrics | {"by_popularity": curves[name]} for name, metrics in made.items()}
            ranks |= {f"{name}/{scorer}": values for name, values in found.ranks.items()}
        results |= {"baselines": entries, "text_encoder": manifest}
        self.workdir.write(ranks)

    def write_table(self) -> None:
        """The table of results as results.md."""
        if not self.splits:
            return
        if parallel.is_main():
            write_atomically(self.workdir.path / "results.md", table.as_markdown(self.workdir.results).encode())

    def show(self, beside: Sequence[dict[str, Any]] = ()) -> None:
        """The table of results, on the console and as results.md; on the console with results of runs `beside` it."""
        self.write_table()
        path = self.workdir.path
        if not self.splits:
            epochs = ", ".join(f"{name} {phase['epochs']}" for name, phase in self.workdir.results["phases"].items())
            say(f"every event trained (epochs: {epochs}), so there are no figures: {path}/results.json")
            return
        say("\n" + table.as_text(self.workdir.results, beside=beside) + f"\n\nresults: {path}/results.json")
