"""A method on a dataset in a workdir: what it works on, and what can be done with it."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pad_jax import parallel
from pad_jax.atomic import write_atomically
from pad_jax.batching.device import DeviceData, device_data
from pad_jax.console import say
from pad_jax.data import readers
from pad_jax.data.dataset import SPLITS, Dataset, Split, frequency_buckets
from pad_jax.errors import UserError
from pad_jax.evaluation.baselines import BASELINES, baseline_ranks
from pad_jax.evaluation.metrics import summarize
from pad_jax.evaluation.ranking import ranker
from pad_jax.methods.registry import METHODS, method_of
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import Scorer
from pad_jax.report import table
from pad_jax.serving.artifact import Artifact, Text, is_of
from pad_jax.settings import Config
from pad_jax.text.source import TextSource
from pad_jax.training import loop
from pad_jax.training.checkpoint import Checkpoints
from pad_jax.training.parameters import split, start
from pad_jax.training.phase import Phase
from pad_jax.training.step import merge
from pad_jax.workdir.identity import Workdir, rules_of


class Run:
    """Everything is read when first needed. `command` tells the user how a job is run."""

    def __init__(self, config: Config, workdir: Path, command: Callable[[str], str]):
        self.config, self.command, self._path = config, command, workdir
        self.rules = rules_of(workdir) or METHODS.entry(config.method).rules
        self.method = method_of(config, self.rules)

    @cached_property
    def workdir(self) -> Workdir:
        table = self.text.table if self.method.reads_text else None
        return Workdir(self._path, self.config, self.dataset.fingerprint, table and table.sha256, self.rules)

    @cached_property
    def dataset(self) -> Dataset:
        started = time.monotonic()
        data = readers.load(self.config)
        say(
            f"{data.name}: {data.users:,} users, {data.items:,} items, {len(data.events):,} events "
            f"({time.monotonic() - started:.1f} s)" + (f"; {data.note}" if data.note else "")
        )
        return data

    @cached_property
    def text(self) -> TextSource:
        return TextSource(self.config, self.dataset, self.method.name if self.method.reads_text else "")

    @cached_property
    def data(self) -> DeviceData:
        """What training needs of dataset and text, on every device."""
        config = self.config
        text = self.text.for_training() if self.method.reads_text else None
        data = device_data(self.dataset, config.data.length, config.data.buckets, text)
        arrays = {name: EXPERTS[name].arrays(config, self.dataset, text) for name in self.method.experts}
        return parallel.replicate(data._replace(arrays={name: own for name, own in arrays.items() if own}))

    @cached_property
    def splits(self) -> dict[str, Split]:
        return {name: self.dataset.split(name, self.config.data.length) for name in SPLITS}

    def metrics(self, ranks: np.ndarray, name: str) -> dict[str, Any]:
        target, counts, buckets = self.splits[name].target, self.dataset.counts, self.config.data.buckets
        bucket, _ = frequency_buckets(counts, buckets)
        return summarize(ranks, counts[target], bucket[target], self.config.eval.ks, buckets, self.dataset.items)

    def prepare(self) -> None:
        """Reads the dataset and says what is in it."""
        say(readers.summary(self.dataset, self.config))

    def train(self, phases: Sequence[Phase]) -> None:
        for phase in phases:
            self.train_phase(phase)

    def train_phase(self, phase: Phase) -> None:
        """Trains a phase to its end and evaluates its best checkpoint; a phase that is done is left alone."""
        finished = self.workdir.results["phases"]
        if phase.name in finished:
            say(f"{phase.name}: finished before, best epoch {finished[phase.name]['best_epoch']}")
            return
        if self.rules != (today := METHODS.entry(self.config.method).rules):
            raise UserError(
                f"{self.workdir.path} was made under rules {self.rules} of the method {self.config.method!r}, which "
                f"has rules {today} now: it can be evaluated, reported and served; train in a new --workdir"
            )
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
        best, summary = loop.train(self.config, phase, scorer, params, frozen, self.data, evaluate, directory)
        self.record(phase, rank, best, summary | {"parameters": sum(sizes.values())})

    def initial(self, phase: Phase) -> tuple[Scorer, dict[str, Any], dict[str, Any]]:
        """The scorer of a phase, and the parameters it starts with: trained and kept."""
        scorer = phase.scorer(self.config)
        key = jax.random.fold_in(jax.random.key(self.config.seed), 0)
        fresh = phase.fresh(self.config, key, self.dataset.items, self.data.text.shape[1])
        previous = None
        if phase.start:
            before = self.method.phases[self.method.phases.index(phase) - 1]
            if before.name not in self.workdir.results["phases"]:
                raise UserError(
                    f"{phase.name} starts from the checkpoint of {before.name}, which is not finished in "
                    f"{self.workdir.path}; make it with: {self.command(before.name)}"
                )
            previous = self.best(before)
        return scorer, *split(start(phase, self.config, fresh, previous, self.data), phase.keep)

    def best(self, phase: Phase) -> dict[str, Any]:
        """All parameters of a finished phase's best checkpoint."""
        checkpoints = Checkpoints(self.workdir.path / phase.name / "checkpoints")
        params, frozen = checkpoints.parameters(self.workdir.results["phases"][phase.name]["best_epoch"])
        checkpoints.close()
        return merge(params, frozen)

    def record(self, phase: Phase, rank: Callable, params: dict[str, Any], summary: dict[str, Any]) -> None:
        """Ranks both splits and writes results and ranks."""
        ranks = {name: rank(params, self.data, part) for name, part in self.splits.items()}
        results = self.workdir.results
        metrics = {name: self.metrics(ranks[name], name) for name in ranks}
        results["phases"][phase.name] = metrics | summary
        last = [p.name for p in self.method.phases if p.name in results["phases"]][-1]
        results |= {name: results["phases"][last][name] for name in metrics}
        self.workdir.write({f"{name}/{phase.name}": ranks[name] for name in ranks})

    def export(self) -> None:
        """What `pad_jax.load` reads, once the last phase is finished, unless it is there already.

        Raises UserError before that.
        """
        phase, folder = self.method.phases[-1], self.workdir.path / "model"
        if phase.name not in self.workdir.results["phases"]:
            raise UserError(f"{self.workdir.path} holds no trained model; train it with: {self.command('all')}")
        identity = self.workdir.identity | {"best_epoch": self.workdir.results["phases"][phase.name]["best_epoch"]}
        same = is_of(folder, identity)
        parallel.wait("model")  # all processes have looked before one writes
        if same:
            return
        text = Text()
        if self.method.reads_text:
            table = self.text.table
            assert table is not None
            text = Text(table.rows.shape[1], table.manifest, self.text.transform)
        names = self.dataset.item_ids, self.dataset.titles
        Artifact.of(phase.scorer(self.config), self.best(phase), self.data, *names, text).save(folder, identity)

    def evaluate(self) -> None:
        """Ranks again with the best checkpoint of every finished phase."""
        results = self.workdir.results
        done = [phase for phase in self.method.phases if phase.name in results["phases"]]
        if not done:
            raise UserError(f"{self.workdir.path} holds no finished phase; train it with: {self.command('all')}")
        results["baselines"] = {}
        self.baselines()
        for phase in done:
            summary = {k: v for k, v in results["phases"][phase.name].items() if k not in self.splits}
            self.record(phase, ranker(phase.scorer(self.config), self.config.eval.batch), self.best(phase), summary)

    def baselines(self) -> None:
        """The baselines that hardly learn: once in a workdir, again when there is another text table."""
        results, text = self.workdir.results, self.text.table
        known = results["baselines"]
        if not parallel.is_main() or (known and results["text_encoder"] == (text and text.manifest)):
            return
        say("baselines")
        entries: dict[str, Any] = dict.fromkeys(BASELINES)
        ranks = {f"{name}/target_count": self.dataset.counts[part.target] for name, part in self.splits.items()}
        for name, part in self.splits.items():
            for scorer, values in baseline_ranks(self.dataset, part, text and text.rows):
                if values is not None:
                    entries[scorer] = (entries[scorer] or {}) | {name: self.metrics(values, name)}
                    ranks[f"{name}/{scorer}"] = values
        results |= {"baselines": entries, "text_encoder": text and text.manifest}
        self.workdir.write(ranks)

    def write_table(self) -> None:
        """The table of results as results.md."""
        if parallel.is_main():
            write_atomically(self.workdir.path / "results.md", table.as_markdown(self.workdir.results).encode())

    def show(self) -> None:
        """The table of results, on the console and as results.md."""
        self.write_table()
        path = self.workdir.path
        say("\n" + table.as_text(self.workdir.results) + f"\n\nresults: {path}/results.json")
