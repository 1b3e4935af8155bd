"""How long a run takes, by those that are finished."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pad_jax.errors import UserError
from pad_jax.settings import Config
from pad_jax.workdir.identity import differences, read_config
from pad_jax.workdir.results import read_results


class Known(NamedTuple):
    """A run whose phases, or some of them, are finished."""

    path: Path
    method: str
    dataset_sha256: str
    minutes: dict[str, float]  # of each finished phase


class Guess(NamedTuple):
    """Minutes of a run, NaN where nobody knows; `same` where they are of the same row under any seed."""

    minutes: float
    same: bool

    def __str__(self) -> str:
        if np.isnan(self.minutes):
            return "unknown"
        return ("" if self.same else "~") + (f"{self.minutes:.0f}" if self.minutes >= 10 else f"{self.minutes:.1f}")


def known_in(folders: Iterable[Path]) -> list[Known]:
    """The runs in some folders; one that is damaged is left to whoever needs it."""
    found = []
    for path in sorted({p.parent for folder in folders for p in folder.glob("*/results.json")}):
        try:
            identity, phases = read_config(path), read_results(path)["phases"]
        except UserError:
            continue
        minutes = {name: phase["seconds"] / 60 for name, phase in phases.items() if "seconds" in phase}
        found.append(Known(path, identity["config"]["method"], identity["dataset_sha256"], minutes))
    return found


def guess(config: Config, phases: Sequence[str], folder: Path, dataset_sha256: str, known: Sequence[Known]) -> Guess:
    """How long some phases of a configuration take: as long as in the same run under other seeds; without such ones as
    in runs of the method in its folder; without those as anywhere.

    Args:
        config: of the run.
        phases: names of those that it trains itself.
        folder: where runs of its dataset are.
        dataset_sha256: the dataset's fingerprint.
        known: finished runs.
    """
    fitting = [run for run in known if run.method == config.method and set(phases) <= set(run.minutes)]
    here = [run for run in fitting if run.path.parent == folder]
    same = [r for r in here if r.dataset_sha256 == dataset_sha256 and not differences(r.path, config, ("seed",))]
    for runs in (same, here, fitting):
        if runs:
            return Guess(float(np.mean([sum(run.minutes[p] for p in phases) for run in runs])), runs is same)
    return Guess(float("nan"), False)
