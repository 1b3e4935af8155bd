"""Runs that differ by their seed alone, read from disk as one."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pad_jax.errors import UserError
from pad_jax.evaluation.metrics import hit_ratio, ndcg
from pad_jax.report.table import GROUPS
from pad_jax.workdir.identity import changes_results, read_config
from pad_jax.workdir.results import read_ranks, read_results

METRICS = {"HR@10": hit_ratio, "nDCG@10": ndcg}


class RunGroup:
    """Runs that differ by their seed alone."""

    def __init__(self, paths: list[Path]):
        self.paths = paths
        self.results = [self._read(path) for path in paths]
        identities = [self._identity(path) for path in paths]
        for path, identity in zip(paths, identities, strict=True):
            if identity != identities[0]:
                raise UserError(f"{path} and {paths[0]} differ by more than their seed; compare them with --against")
        seeds = [r["seed"] for r in self.results]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"{', '.join(map(str, paths))}: a seed appears twice; name each run once")
        first, self.dataset = self.results[0], identities[0]["dataset_sha256"]
        self.phase = list(first["phases"])[-1]
        self.name = f"{first['method']} ({first['backbone']}, {first['loss']}, recipe {first['recipe']}, {self.phase})"
        self.label = f"{self.name}, {len(paths)} seed{'s' if len(paths) > 1 else ''}"

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        results = read_results(path)
        if not results.get("phases"):
            raise UserError(f"{path} holds no finished run; train it first")
        return results

    def _identity(self, path: Path) -> dict[str, Any]:
        """What runs of one group share: everything but the seed and where things are."""
        identity = read_config(path)
        config = {n: v for n, v in identity["config"].items() if changes_results(n) and n != "seed"}
        return identity | {"config": config, "phases": list(read_results(path)["phases"])}

    def per_user(self, metric: str) -> np.ndarray:
        """The metric of every user's test target, a mean over seeds."""
        ranks = (read_ranks(path)[f"test/{self.phase}"] for path in self.paths)
        return np.mean([METRICS[metric](values, 10) for values in ranks], axis=0)

    def row(self) -> list[str]:
        cells = [[self.cell(group, metric) for metric in METRICS] for group in GROUPS]
        return ["-" if set(pair) == {"-"} else " / ".join(pair) for pair in cells]

    def metrics(self, group: str) -> list[dict[str, Any]]:
        """The test metrics of a group of users, or of `all`, for each seed."""
        return [r["test"] if group == "all" else r["test"]["by_frequency"][group] for r in self.results]

    def mean(self, group: str, metric: str) -> float:
        """Mean over seeds; NaN for a group without users."""
        return float(np.mean([np.nan if m[metric] is None else m[metric] for m in self.metrics(group)]))

    def pairs(self, other: "RunGroup") -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Results of both for each seed that both have."""
        theirs = {r["seed"]: r for r in other.results}
        return [(r, theirs[r["seed"]]) for r in self.results if r["seed"] in theirs]

    @property
    def parameters(self) -> int:
        """Of the last phase."""
        return self.results[0]["phases"][self.phase]["parameters"]

    @property
    def seconds_per_epoch(self) -> float:
        """Over all phases and seeds; every epoch counts as its phase's median one, lest a machine's pause count."""
        seconds: list[float] = []
        for path, results in zip(self.paths, self.results, strict=True):
            for phase in results["phases"]:
                epochs = np.diff([line["seconds"] for line in self._log(path, phase)], prepend=0.0)
                seconds += [float(np.median(epochs))] * len(epochs)
        return float(np.mean(seconds))

    def curves(self, metric: str) -> dict[str, list[tuple[list[float], int]]]:
        """The metric on validation after every epoch of each phase, in percent, and the best epoch, for each seed."""
        found: dict[str, list[tuple[list[float], int]]] = {}
        for path, results in zip(self.paths, self.results, strict=True):
            for phase in results["phases"]:
                lines = self._log(path, phase)
                values = [100 * line["valid"][metric] for line in lines]
                found.setdefault(phase, []).append((values, results["phases"][phase]["best_epoch"]))
        return found

    @staticmethod
    def _log(path: Path, phase: str) -> list[dict[str, Any]]:
        log = path / phase / "metrics.jsonl"
        if not log.exists():
            raise UserError(f"{log} is missing, which has a line for each epoch; put it back, or remove {path}")
        return [json.loads(line) for line in log.read_text().splitlines()]

    def cell(self, group: str, metric: str) -> str:
        """Mean and standard deviation over seeds, in percent; `-` for a group without users."""
        tests = self.metrics(group)
        if tests[0]["users"] == 0:
            return "-"
        values = [100 * test[metric] for test in tests]
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        return f"{np.mean(values):.2f}{spread}"
