"""Runs that differ by their seed alone, read from disk as one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pad_jax import sealed
from pad_jax.errors import UserError
from pad_jax.evaluation import popularity
from pad_jax.evaluation.metrics import hit_ratio, ndcg
from pad_jax.report.table import GROUPS
from pad_jax.sealed import DamagedError
from pad_jax.workdir.identity import changes_results, read_config
from pad_jax.workdir.results import CURE, read_ranks, read_results

METRICS = {"HR@10": hit_ratio, "nDCG@10": ndcg}
#: By phase the epochs of every seed, and whether its minutes ended it.
Lengths = Mapping[str, Sequence[tuple[int, bool]]]


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
        asked = popularity.asked(first["phases"][self.phase])
        parts = [first["backbone"], first["loss"], f"recipe {first['recipe']}", self.phase]
        parts += [f"popularity {asked}"] if asked else []
        self.name = f"{first['method']} ({', '.join(parts)})"
        self.label = f"{self.name}, {len(paths)} seed{'s' if len(paths) > 1 else ''}"

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        results = read_results(path, read_config(path)["of"])
        if not results.get("phases"):
            raise UserError(f"{path} holds no finished run; train it first")
        if not results.get("holdout", True):
            raise UserError(f"{path} was trained on every event (data.holdout), so there is nothing to report")
        return results

    def _identity(self, path: Path) -> dict[str, Any]:
        """What runs of one group share: everything but the seed and where things are."""
        identity = read_config(path) | {"of": ""}
        config = {n: v for n, v in identity["config"].items() if changes_results(n) and n != "seed"}
        phases = read_results(path)["phases"]
        dial = [popularity.asked(phase) for phase in phases.values()]
        return identity | {"config": config, "phases": list(phases), "popularity": dial}

    def by_seed(self, metric: str) -> dict[int, Float[np.ndarray, " U"]]:
        """The metric of every user's test target under each seed."""
        found = zip(self.results, self.paths, strict=True)
        return {r["seed"]: METRICS[metric](self.ranks(path, self.phase), 10) for r, path in found}

    def per_user(self, metric: str) -> Float[np.ndarray, " U"]:
        """The same, a mean over seeds."""
        return np.mean(list(self.by_seed(metric).values()), axis=0)

    @staticmethod
    def ranks(path: Path, name: str) -> np.ndarray:
        """Of the test split of a run. Raises DamagedError where there are none."""
        found = read_ranks(path, read_config(path)["of"])
        if f"test/{name}" not in found:
            raise DamagedError(path / "ranks.safetensors", f"lacks the ranks of {name}", CURE)
        return found[f"test/{name}"]

    @property
    def lengths(self) -> Lengths:
        """How long every phase was trained."""
        found = {name: [results["phases"][name] for results in self.results] for name in self.results[0]["phases"]}
        return {name: [(p["epochs"], p.get("stopped") == "minutes") for p in of] for name, of in found.items()}

    def row(self) -> list[str]:
        cells = [[self.cell(group, metric) for metric in METRICS] for group in GROUPS]
        return ["-" if set(pair) == {"-"} else " / ".join(pair) for pair in cells]

    def metrics(self, group: str) -> list[dict[str, Any]]:
        """The test metrics of a group of users, or of `all`, for each seed."""
        return [r["test"] if group == "all" else r["test"]["by_frequency"][group] for r in self.results]

    def valid(self) -> float:
        """nDCG@10 on the validation split, a mean over seeds: what a row is chosen by."""
        return float(np.mean([r["valid"]["nDCG@10"] for r in self.results]))

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
            for phase, found in results["phases"].items():
                epochs = np.diff([line["seconds"] for line in self._log(path / phase, found)], prepend=0.0)
                seconds += [float(np.median(epochs))] * len(epochs)
        return float(np.mean(seconds))

    def curves(self, metric: str) -> dict[str, list[tuple[list[float], int]]]:
        """The metric on validation after every epoch of each phase, in percent, and the best epoch, for each seed."""
        found: dict[str, list[tuple[list[float], int]]] = {}
        for path, results in zip(self.paths, self.results, strict=True):
            for phase, of_phase in results["phases"].items():
                values = [100 * line["valid"][metric] for line in self._log(path / phase, of_phase)]
                found.setdefault(phase, []).append((values, of_phase["best_epoch"]))
        return found

    @staticmethod
    def _log(folder: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
        """The lines of a finished phase, one an epoch. Raises DamagedError for other ones than were written."""
        path, cure = folder / "metrics.jsonl", f"put it back, or remove {folder.parent} to train again"
        try:
            lines = sealed.read_bytes(path, cure).decode().splitlines()
            if results.get("log", sealed.digest(lines)) != sealed.digest(lines) or len(lines) != results["epochs"]:
                raise DamagedError(path, f"is not the log of the {results['epochs']} epochs of its phase", cure)
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise DamagedError(path, "is not JSON in UTF-8", cure) from error

    def cell(self, group: str, metric: str) -> str:
        """Mean and standard deviation over seeds, in percent; `-` for a group without users."""
        tests = self.metrics(group)
        if tests[0]["users"] == 0:
            return "-"
        values = [100 * test[metric] for test in tests]
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        return f"{np.mean(values):.2f}{spread}"


def paired(first: Mapping[int, Float[np.ndarray, " U"]], second: Mapping[int, Float[np.ndarray, " U"]]) -> np.ndarray:
    """Each user's difference under every seed that both have, [S, U]; `RunGroup.by_seed` gives the two."""
    return np.array([first[seed] - second[seed] for seed in first if seed in second])


def differ_by_minutes(one: Lengths, two: Lengths) -> bool:
    """Whether minutes ended a phase of either that the other has with other epochs, or has not at all."""
    differ = [(*one.get(phase, ()), *two.get(phase, ())) for phase in {*one, *two} if one.get(phase) != two.get(phase)]
    return any(cut for lengths in differ for _, cut in lengths)
