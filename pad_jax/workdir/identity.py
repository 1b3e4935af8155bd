"""A workdir: whose configuration it holds, its lock, and the results in it."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pad_jax import parallel, sealed
from pad_jax.console import say
from pad_jax.environment import machine, versions
from pad_jax.errors import UserError
from pad_jax.evaluation import popularity
from pad_jax.files import sweep, write_atomically, writing
from pad_jax.sealed import FORMAT, DamagedError
from pad_jax.settings import Config, as_before, as_dict, canonical, dotted, put, restored
from pad_jax.workdir.results import CURE, read_ranks, read_results, read_summary, write_ranks, write_results

#: Fields that say where things are and not what is computed: a workdir may be continued with others.
PLACES = ("job", "data.path", "text.table", "text.batch", "eval.batch", "eval.serve")
_OF_RANKING = ("eval.popularity",)  # results say which; a finished run is ranked again with another
_GONE = ("experts.freeze_carried", "experts.supervise", "experts.id_scale")  # before 0.7
_OTHER_JOBS = ("recommend.", "search.", "serve.", "study.", "tune.")
REFIT = "refit"  # folder in a workdir: the same method on all events, a workdir itself
_IN_THE_DATA = "table."  # whatever it changes, the dataset's own identity says


def changes_results(name: str) -> bool:
    """Whether runs that differ in the configuration's field `name` are runs of different things."""
    return name not in (*PLACES, *_OF_RANKING, *_GONE) and not name.startswith((*_OTHER_JOBS, _IN_THE_DATA))


def run_name(config: Config) -> str:
    """<method>-<backbone>-<loss>-<recipe>-s<seed>, the default name of a workdir."""
    return f"{config.method}-{config.backbone}-{config.loss}-{config.recipe}-s{config.seed}"


def home(config: Config) -> Path:
    """Where runs of a dataset are."""
    return Path("runs") / config.dataset


def place_of(path: Path, config: Config, dataset_sha256: str) -> Path:
    """The workdir of a configuration on a dataset: `path`, or where that holds another one, with a hash of this one
    behind it."""
    if rules_of(path) is None:
        return path
    if not differences(path, config) and read_config(path)["dataset_sha256"] == dataset_sha256:
        return path
    return path.with_name(f"{path.name}-{digest(config, dataset_sha256)}")


def digest(config: Config, dataset_sha256: str) -> str:
    """Eight letters for the data and for all that changes results, but what means the same as not saying it."""
    before = json.loads(json.dumps(as_before()))
    ours = json.loads(json.dumps(dotted(as_dict(config))))
    said = {n: v for n, v in sorted(ours.items()) if changes_results(n) and v != before.get(n)}
    return hashlib.sha256(json.dumps([said, dataset_sha256]).encode()).hexdigest()[:8]


def differences(path: Path, config: Config, leaving: Iterable[str] = ()) -> dict[str, tuple[Any, Any]]:
    """The fields in which a workdir's configuration is another one: (value there, value here); none of `leaving`."""
    theirs, ours = read_config(path)["config"], dotted(json.loads(json.dumps(as_dict(config))))
    names = [n for n in ours | theirs if changes_results(n) and n not in leaving]
    return {n: (theirs.get(n), ours.get(n)) for n in names if ours.get(n) != theirs.get(n)}


def settings_of(path: Path, config: Config, given: Iterable[str]) -> Config:
    """The configuration of a workdir, for a job that works with what was trained there.

    Fields that change no result come from `config` where they are set there, and so does `eval.popularity`, which is
    otherwise what the run was last ranked with. Raises UserError for one of `given`, what the command line sets, that
    says otherwise of a field that does.
    """
    there = read_config(path)["config"] | {"eval.popularity": _popularity(path)}
    ours = dotted(as_dict(config))
    other = [n for n in given if changes_results(n) and n in ours and json.loads(json.dumps(ours[n])) != there.get(n)]
    if other:
        name = other[0]
        raise UserError(
            f"{path} was made with config.{name}={there.get(name)!r}, not {ours[name]!r}: the job {config.job} takes "
            "its settings from there, so leave it out, or name another --workdir"
        )
    if "eval.serve" in given and config.job in ("recommend", "serve") and ours["eval.serve"] != there["eval.serve"]:
        raise UserError(
            f"config.eval.serve={ours['eval.serve']!r}: the job {config.job} works with the phase that {path}/model "
            "is of; the job evaluate with this setting makes it of another"
        )
    usual = as_before()
    same = config.dataset == there["dataset"]
    asked = {n for n in ours if not changes_results(n) and (same or n in given or n.startswith(_OTHER_JOBS))}
    tree = there | {n: ours[n] for n in asked if n in given or ours[n] != usual.get(n)} | {"job": config.job}
    nested: dict[str, Any] = {}
    for name, value in tree.items():
        put(nested, name, value)
    return restored(nested)


def _popularity(path: Path) -> float | str:
    with contextlib.suppress(DamagedError):  # which the job `evaluate` mends
        for phase in reversed(read_results(path).get("phases", {}).values()):
            return popularity.asked(phase)
    return read_config(path)["config"]["eval.popularity"]


def run_of(config: Config, given: Iterable[str], train: str) -> Path:
    """The workdir that a job without --workdir works with: that of its own settings, else the only one of the dataset.

    `given` are fields that the command line sets: runs with others are none. `train` is a command that makes one.
    Raises UserError where there is none, or more than one, listing them.
    """
    folder = home(config)
    unset = () if config.data.length else ("data.length",)
    found = {}
    for path in sorted(p.parent for p in folder.glob("*/results.json")):
        try:
            if read_results(path).get("phases") and (
                config.job not in ("recommend", "serve") or (path / "model").is_dir()
            ):
                found[path] = differences(path, config, unset)
        except UserError as error:
            say(f"{path} is left out: {error}")
    exact = [path for path, others in found.items() if not others]
    fitting = exact or [path for path, others in found.items() if not set(others) & set(given)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        some = " with these settings" if found else ""
        raise UserError(f"{folder} holds no finished run{some}; train one with: {train}")
    raise UserError(
        f"{folder} holds {len(fitting)} finished runs; choose one with --workdir: {', '.join(map(str, fitting))}"
    )


def read_config(workdir: Path) -> dict[str, Any]:
    """{"config", "dataset_sha256", "text_sha256", "start_sha256", "rules", "of"} of a workdir.

    Fields have the names of today, and those that the file does not know the values that mean what was done then.
    Raises UserError where there is no such file.
    """
    path = workdir / "config.json"
    try:
        return _identity_in(path)
    except DamagedError:
        for spare in sorted(workdir.glob("*/config.json")):  # that of every phase is the same
            if spare.parent.name == REFIT:  # another run
                continue
            with contextlib.suppress(DamagedError):
                found = _identity_in(spare)
                if found["of"] and parallel.is_main():
                    write_atomically(path, spare.read_bytes())
                    say(f"{path} was damaged: made again from {spare}")
                    return found
        raise


def _identity_in(path: Path) -> dict[str, Any]:
    found = sealed.read_json(path, FORMAT, "use a new --workdir, or put it back")
    try:
        config = as_before() | dotted(canonical(dict(found["config"])))
        sha256 = {n: found[n] for n in ("dataset_sha256", "text_sha256")} | {"start_sha256": found.get("start_sha256")}
        of = str(found.get("of", ""))
        return {"config": json.loads(json.dumps(config)), **sha256, "rules": int(found.get("rules", 1)), "of": of}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(path, "is not a configuration of this project", "use a new --workdir") from error


def _whose(identity: dict[str, Any]) -> str:
    """64 letters for a run: they stand in all that it writes."""
    config = {n: v for n, v in dotted(identity["config"]).items() if changes_results(n)}
    return sealed.digest(identity | {"config": config})


def rules_of(path: Path) -> int | None:
    """The number of the method's rules under which a workdir was made; None for one that holds nothing yet."""
    holds = any(path.glob("*/checkpoints/[0-9]*"))
    try:
        holds = holds or bool(read_results(path).get("phases"))
    except DamagedError:
        if not holds and not (path / "config.json").exists():
            raise  # nobody can say what it was
        holds = True
    return read_config(path)["rules"] if holds else None


@contextmanager
def locked(path: Path, reads: bool = False) -> Iterator[None]:
    """A workdir for this run alone; one that cannot be written as it is for a run that only `reads`.

    Raises UserError while another run has it.
    """
    if not parallel.is_main():
        yield
        return
    lock = path / ".lock"
    held = filelock.FileLock(lock, timeout=0)
    with writing(path, "use another --workdir"):
        path.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire()
        except filelock.Timeout as error:
            raise UserError(f"{path} is in use by another run; wait for it, or use another --workdir") from error
        except OSError as error:
            if not reads or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
    try:
        for folder in (path, *(p for p in path.iterdir() if p.is_dir()), path.parent):
            sweep(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            if list(path.iterdir()) == [lock]:  # a run that did nothing leaves nothing
                lock.unlink()
                path.rmdir()
        held.release()


class Workdir:
    """The results of one configuration on one dataset. In a run of several processes the first alone writes."""

    def __init__(
        self,
        path: Path,
        config: Config,
        dataset_sha256: str,
        text_sha256: str | None,
        rules: int,
        repairs: Sequence[str] = (),
        start_sha256: str | None = None,
    ):
        """The results that are there, or none yet.

        Args:
            path: of the folder.
            config: of the run.
            dataset_sha256: the dataset's fingerprint.
            text_sha256: of the text table that the method reads.
            rules: number of the method's rules today, or that under which the workdir was made.
            repairs: phases of the method; results and ranks that are damaged are made again from what these left.
            start_sha256: of the model that `config.start` names.
        """
        self.path, self.config = path, config
        shas = {"dataset_sha256": dataset_sha256, "text_sha256": text_sha256, "start_sha256": start_sha256}
        self.identity = {"config": as_dict(config), **shas, "rules": rules}
        self.of = _whose(self.identity)
        self.results: dict[str, Any] = {
            "format": FORMAT,
            **{n: getattr(config, n) for n in ("dataset", "method", "backbone", "loss", "recipe", "seed")},
            "text_encoder": None,
            "versions": versions(),
            "machine": machine(),
            "phases": {},
            "baselines": {},
        }
        self._new = rules_of(path) is None
        self._repairs = bool(repairs)
        if not self._new:  # otherwise nothing is lost
            self._refuse_others()
            self.of = read_config(path)["of"] or self.of
            try:
                self.results = read_results(path, self.of) or self.results
                ranks = path / "ranks.safetensors"
                if self.results["phases"] and not os.path.lexists(ranks) and not repairs:
                    raise DamagedError(ranks, "is missing", CURE)
            except DamagedError as error:
                if not repairs:
                    raise
                say(f"{error.path} {error.wrong}: made again")
                found = {name: read_summary(path / name, self.of) for name in repairs}
                self.results["phases"] = {name: summary for name, summary in found.items() if summary}
        self.results["of"] = self.of

    def _refuse_others(self) -> None:
        """Raises UserError in a workdir of another configuration or dataset, naming what differs."""
        found, others = read_config(self.path), differences(self.path, self.config)
        if others:
            told = ", ".join(f"{n} ({there!r} there, {here!r} here)" for n, (there, here) in others.items())
            raise UserError(f"{self.path} holds another configuration: {told}; use a new --workdir")
        if found["dataset_sha256"] != self.identity["dataset_sha256"]:
            raise UserError(f"{self.path} was made from other data; use a new --workdir")
        if found["text_sha256"] != self.identity["text_sha256"]:
            raise UserError(f"{self.path} was made with another text table; use a new --workdir")
        if found["start_sha256"] != self.identity["start_sha256"]:
            raise UserError(
                f"{self.path} began with another model than {self.config.start} holds now (config.start); use a new "
                "--workdir"
            )

    def write_config(self, phase: str) -> None:
        """Whose workdir this is, once for the whole and once for the phase."""
        if parallel.is_main():
            for path in (self.path / "config.json", self.path / phase / "config.json"):
                sealed.write_json(path, self.identity | {"of": self.of, "format": FORMAT})

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A tree of arrays that the first process makes before training begins, and that is the run's own then.

        Raises DamagedError where a run that has begun lacks it: made again on another machine it could be another one.
        """
        path, cure = self.path / f"{name}.safetensors", "put it back, or use a new --workdir"
        if self._new and parallel.is_main():
            arrays = flatten_dict(make(), sep="/")
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(path, sealed.tensors(arrays, {"format": FORMAT, "of": self.of}))
        parallel.wait(name)
        arrays, about = sealed.read_tensors(path, FORMAT, cure)
        if about.get("of") != self.of:
            raise DamagedError(path, "is of another run", cure)
        return unflatten_dict(arrays, sep="/")

    def _known_ranks(self) -> dict[str, np.ndarray]:
        try:
            return read_ranks(self.path, self.of)
        except DamagedError as error:
            if not self._repairs and not self._new:
                raise
            if not self._new:
                say(f"{error.path} {error.wrong}: made again")
            return {}

    def write(self, ranks: dict[str, np.ndarray]) -> None:
        """Results and additional ranks to disk."""
        if parallel.is_main():
            write_ranks(self.path, self._known_ranks() | ranks, self.of)
            write_results(self.path, self.results, self.of)
