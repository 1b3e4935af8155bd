"""A method on a dataset in a workdir: what it works on, and what can be done with it."""

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np

from pad_jax import data as datasets
from pad_jax.config import Config
from pad_jax.data.batches import DeviceData, device_data
from pad_jax.data.dataset import SPLITS, Dataset, Split, frequency_buckets
from pad_jax.errors import UserError
from pad_jax.evaluation.baselines import BASELINES, baseline_ranks
from pad_jax.evaluation.metrics import summarize
from pad_jax.evaluation.ranking import ranker
from pad_jax.methods.base import Method, Phase
from pad_jax.models.scorer import Scorer
from pad_jax.report.console import say
from pad_jax.serving import export, is_of
from pad_jax.text import encode as text_encode
from pad_jax.text.table import Transform, check_finite, check_replaceable, check_settings, fit, read_table
from pad_jax.training import loop, parallel
from pad_jax.training.checkpoint import Checkpoints
from pad_jax.training.parameters import split, start
from pad_jax.training.step import merge
from pad_jax.workdir import Workdir


class Run:
    """Everything is read when first needed."""

    def __init__(self, config: Config, workdir: Path, method: Method, command: Callable[[str], str]):
        self.config, self.method, self.command, self._path = config, method, command, workdir

    @cached_property
    def workdir(self) -> Workdir:
        table = self.text[0] if self.method.reads_text and self.text else None
        text = None if table is None else hashlib.sha256(table.tobytes()).hexdigest()
        return Workdir(self._path, self.config, self.dataset.fingerprint, text)

    @cached_property
    def dataset(self) -> Dataset:
        started = time.monotonic()
        data = datasets.load(self.config)
        say(
            f"{data.name}: {data.users:,} users, {data.items:,} items, {len(data.events):,} events "
            f"({time.monotonic() - started:.1f} s)" + (f"; {data.note}" if data.note else "")
        )
        return data

    def prepare(self) -> None:
        """Reads the dataset and says what is in it."""
        say(datasets.summary(self.dataset, self.config.data.buckets))

    @property
    def table_path(self) -> Path:
        if self.config.text.table:
            return Path(self.config.text.table)
        name = f"{self.config.text.encoder}-{self.config.text.pooling}".strip("/").replace("/", "_")
        return Path("runs") / self.config.dataset / f"text-{name}.safetensors"

    def encode(self, again: bool = False) -> None:
        """Makes the text table, when it is missing or `again`; while another run makes it, this one waits."""
        path = self.table_path
        check_replaceable(path)
        if jax.process_index() == 0 and (again or not path.exists()):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with filelock.FileLock(path.with_name(f".{path.name}.lock")):
                    if again or not path.exists():
                        text_encode.encode_table(path, self.dataset, self.config.text)
                        say(f"text table: {path}")
            except OSError as error:
                raise UserError(f"text table {path} cannot be written ({error}); set --config.text.table") from error
        parallel.wait("encode")

    @cached_property
    def text(self) -> tuple[np.ndarray, dict[str, Any]] | None:
        """The text table and its manifest; None when the method works without and there is none."""
        if not self.table_path.exists():
            if self.config.text.table:
                raise UserError(f"config.text.table={self.table_path} does not exist; make it with the job `encode`")
            if not self.method.reads_text:
                return None
            if not text_encode.available():
                raise UserError(
                    f"method {self.method.name} reads item texts, but there is no table {self.table_path} and no torch "
                    "to make one: pip install -r requirements.txt, or set --config.text.table"
                )
            self.encode()
        table, manifest = read_table(self.table_path, self.dataset)
        if not self.config.text.table:
            check_settings(self.table_path, manifest, self.config.text)
        if self.config.text.keep_in == "float16" and table.dtype != np.float16:
            with np.errstate(over="ignore"):
                table = table.astype(np.float16)
            check_finite(self.table_path, table[1:], range(1, len(table)))
        return table, manifest

    @cached_property
    def transform(self) -> Transform:
        """What text vectors go through before training reads them."""
        assert self.text is not None
        return fit(self.text[0][1:], self.config.text.transform, self.config.model.width)

    @cached_property
    def data(self) -> DeviceData:
        config, text = self.config, None
        if self.method.reads_text:
            assert self.text is not None
            table = self.text[0]
            rows = self.transform(table[1:])
            text = np.concatenate([np.zeros((1, rows.shape[1]), rows.dtype), rows]).astype(table.dtype)
            if config.model.text_tower == "residual" and text.shape[1] != config.model.width:
                raise UserError(
                    f"config.model.text_tower=residual needs text of width {config.model.width}, not {text.shape[1]}: "
                    "set --config.text.transform=principal"
                )
        return parallel.replicate(device_data(self.dataset, config.data.length, config.data.buckets, text))

    @cached_property
    def splits(self) -> dict[str, Split]:
        return {name: self.dataset.split(name, self.config.data.length) for name in SPLITS}

    def metrics(self, ranks: np.ndarray, name: str) -> dict[str, Any]:
        target, counts, buckets = self.splits[name].target, self.dataset.counts, self.config.data.buckets
        bucket, _ = frequency_buckets(counts, buckets)
        return summarize(ranks, counts[target], bucket[target], self.config.eval.ks, buckets)

    def train(self, phases: Sequence[Phase]) -> None:
        for phase in phases:
            self.train_phase(phase)

    def train_phase(self, phase: Phase) -> None:
        """Trains a phase to its end and evaluates its best checkpoint; a phase that is done is left alone."""
        finished = self.workdir.results["phases"]
        if phase.name in finished:
            say(f"{phase.name}: finished before, best epoch {finished[phase.name]['best_epoch']}")
            return
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
        return scorer, *split(start(phase, fresh, previous), phase.keep)

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
        text: tuple[Transform, tuple[int, dict]] = Transform("none", np.zeros(0), np.zeros(0)), (0, {})
        if self.method.reads_text:
            assert self.text is not None
            text = self.transform, (self.text[0].shape[1], self.text[1])
        names = self.dataset.item_ids, self.dataset.titles
        export(folder, self.config, phase.scorer(self.config), self.best(phase), self.data, names, *text, identity)

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
        """The scorers that hardly learn: once in a workdir, again when there is another text table."""
        results, text = self.workdir.results, self.text
        known = results["baselines"]
        if jax.process_index() != 0 or (known and results["text_encoder"] == (text and text[1])):
            return
        say("scorers without learning")
        entries: dict[str, Any] = dict.fromkeys(BASELINES)
        ranks = {f"{name}/target_count": self.dataset.counts[part.target] for name, part in self.splits.items()}
        for name, part in self.splits.items():
            for scorer, values in baseline_ranks(self.dataset, part, text and text[0]):
                if values is not None:
                    entries[scorer] = (entries[scorer] or {}) | {name: self.metrics(values, name)}
                    ranks[f"{name}/{scorer}"] = values
        results |= {"baselines": entries, "text_encoder": text and text[1]}
        self.workdir.write(ranks)
