"""A workdir: whose configuration it holds, its lock, and the results in it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from pad_jax import parallel
from pad_jax.atomic import write_atomically
from pad_jax.environment import machine, versions
from pad_jax.errors import UserError
from pad_jax.settings import Config, as_before, as_dict, canonical, dotted
from pad_jax.workdir.results import FORMAT, read_ranks, read_results, write_ranks, write_results

#: Fields that say where things are and not what is computed: a workdir may be continued with others.
PLACES = ("job", "data.path", "text.table", "text.batch", "eval.batch")
_OTHER_JOBS = ("recommend.", "study.")
_IN_THE_DATA = "table."  # whatever it changes, the dataset's own identity says


def changes_results(name: str) -> bool:
    """Whether runs that differ in the configuration's field `name` are runs of different things."""
    return name not in PLACES and not name.startswith((*_OTHER_JOBS, _IN_THE_DATA))


def run_name(config: Config) -> str:
    """<method>-<backbone>-<loss>-<recipe>-s<seed>, the default name of a workdir."""
    return f"{config.method}-{config.backbone}-{config.loss}-{config.recipe}-s{config.seed}"


def read_config(workdir: Path) -> dict[str, Any]:
    """{"config", "dataset_sha256", "text_sha256", "rules"} of a workdir.

    Fields have the names of today, and those that the file does not know the values that mean what was done then.
    Raises UserError where there is no such file.
    """
    path = workdir / "config.json"
    try:
        found = json.loads(path.read_text())
        config = as_before() | dotted(canonical(dict(found["config"])))
        sha256 = {n: found[n] for n in ("dataset_sha256", "text_sha256")}
        return {"config": json.loads(json.dumps(config)), **sha256, "rules": int(found.get("rules", 1))}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; use a new --workdir") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a configuration of this project; use a new --workdir") from error


def rules_of(path: Path) -> int | None:
    """The number of the method's rules under which a workdir was made; None for one that holds nothing yet."""
    holds = read_results(path).get("phases") or any(path.glob("*/checkpoints/[0-9]*"))
    return read_config(path)["rules"] if holds else None


class Workdir:
    """The results of one configuration on one dataset. In a run of several processes the first alone writes."""

    def __init__(self, path: Path, config: Config, dataset_sha256: str, text_sha256: str | None, rules: int):
        """`rules` is the number of the method's rules today, or that under which the workdir was made."""
        self.path, self.config = path, config
        shas = {"dataset_sha256": dataset_sha256, "text_sha256": text_sha256}
        self.identity = {"config": as_dict(config), **shas, "rules": rules}
        self.results: dict[str, Any] = {
            "format": FORMAT,
            **{n: getattr(config, n) for n in ("dataset", "method", "backbone", "loss", "recipe", "seed")},
            "text_encoder": None,
            "versions": versions(),
            "machine": machine(),
            "phases": {},
            "baselines": {},
        }
        if rules_of(path) is not None:  # otherwise nothing is lost
            self._refuse_others()
            self.results = read_results(path) or self.results

    def _refuse_others(self) -> None:
        """Raises UserError in a workdir of another configuration or dataset, naming what differs."""
        found = read_config(self.path)
        theirs, ours = found["config"], dotted(json.loads(json.dumps(self.identity["config"])))
        names = [n for n in ours | theirs if changes_results(n) and ours.get(n) != theirs.get(n)]
        if names:
            differences = ", ".join(f"{n} ({theirs.get(n)!r} there, {ours.get(n)!r} here)" for n in names)
            raise UserError(f"{self.path} holds another configuration: {differences}; use a new --workdir")
        if found["dataset_sha256"] != self.identity["dataset_sha256"]:
            raise UserError(f"{self.path} was made from other data; use a new --workdir")
        if found["text_sha256"] != self.identity["text_sha256"]:
            raise UserError(f"{self.path} was made with another text table; use a new --workdir")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The workdir for this run alone. Raises UserError while another run has it."""
        if not parallel.is_main():
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self.path / ".lock"
            with filelock.FileLock(lock, timeout=0):
                try:
                    yield
                finally:
                    if list(self.path.iterdir()) == [lock]:  # a run that did nothing leaves nothing
                        lock.unlink()
                        self.path.rmdir()
        except filelock.Timeout as error:
            raise UserError(f"{self.path} is in use by another run; wait for it, or use another --workdir") from error
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); use another --workdir") from error

    def write_config(self, phase: str) -> None:
        """Whose workdir this is, once for the whole and once for the phase."""
        if parallel.is_main():
            for path in (self.path / "config.json", self.path / phase / "config.json"):
                write_atomically(path, json.dumps(self.identity, indent=1).encode())

    def write(self, ranks: dict[str, np.ndarray]) -> None:
        """Results and additional ranks to disk."""
        if parallel.is_main():
            write_ranks(self.path, read_ranks(self.path) | ranks)
            write_results(self.path, self.results)
