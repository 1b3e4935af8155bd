"""Checkpoints of one phase: the latest and the best, written by Orbax, atomic, and sealed.

The progress of an epoch says whose it is and has a checksum of each part of the state, of the data position and of
itself: what is restored is what was saved, by this run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from pad_jax import parallel, sealed
from pad_jax.errors import UserError
from pad_jax.files import write_atomically
from pad_jax.sealed import DamagedError


class Checkpoints:
    """Saves (state, data position, progress) once an epoch; keeps the latest and the best, the first of equals.

    A context manager: what is saved is written in the background, and behind the `with` it is there, whatever ends it.
    """

    def __init__(self, directory: Path, of: str = ""):
        """`of` is whose they are, see `Workdir`; nothing is checked without."""

        def value(metrics):
            return metrics["best"]

        self.directory, self.of = directory.absolute(), of
        with self._one_line():
            for path in self.directory.rglob("*"):
                if not (path.is_dir() or path.is_file()):  # a pipe would be waited for
                    raise ValueError(f"{path.relative_to(self.directory)} is not a file")
            self.manager = ocp.CheckpointManager(
                self.directory,
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(),
                    "data": ocp.JsonCheckpointHandler(),
                    "progress": ocp.JsonCheckpointHandler(),
                },
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=AnyPreservationPolicy([LatestN(1), BestN(get_metric_fn=value, n=1)]),
                    best_fn=value,
                    best_mode="max",
                    cleanup_tmp_directories=True,
                ),
            )

    def save(self, epoch: int, state: Any, position: dict[str, Any], progress: dict[str, Any]) -> None:
        """`progress` has "best", the best value so far, and "best_epoch"; an epoch that is not the best may go."""
        better = progress["best_epoch"] == epoch
        sums = {name: _digest(part) for name, part in state._asdict().items()}
        content = progress | {"of": self.of, "sha256_of": sums | {"data": sealed.digest(position)}}
        with self._written():
            saved = self.manager.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(parallel.as_global(state)),
                    data=ocp.args.JsonSave(position),
                    progress=ocp.args.JsonSave(content | {"sha256": sealed.digest(content)}),
                ),
                metrics={"best": progress["best"] if better else -1e300},
            )
        if not saved:
            raise UserError(f"{self.directory}: epoch {epoch} was not saved, a later one is there; use a new --workdir")

    def latest(self) -> int | None:
        return self.manager.latest_step()

    def restore(self, epoch: int, state: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """The state with the shapes of `state`, replicated on all devices; data position; progress."""
        self._wait()
        arguments = ocp.args.Composite(
            state=_restore_args(jax.tree.map(_abstract, state)),
            data=ocp.args.JsonRestore(),
            progress=ocp.args.JsonRestore(),
        )
        with self._one_line(epoch):
            restored = self.manager.restore(epoch, args=arguments)
            state, position, progress = (restored[name] for name in ("state", "data", "progress"))
            self._check(progress, state._asdict(), position)
        return state, position, {n: v for n, v in progress.items() if n not in _SEAL}

    def parameters(self, epoch: int) -> tuple[Any, Any]:
        """Trained and frozen parameters alone, replicated on all devices."""
        self._wait()
        with self._one_line(epoch):
            tree = self.manager.item_metadata(epoch)["state"]
            target = {name: jax.tree.map(_abstract, tree[name]) for name in ("params", "frozen")}
            progress = ocp.args.JsonRestore()
            arguments = ocp.args.Composite(state=_restore_args(target, partial=True), progress=progress)
            restored = self.manager.restore(epoch, args=arguments)
            state = {name: restored["state"][name] for name in target}
            self._check(restored["progress"], state)
        return state["params"], state["frozen"]

    def _check(self, progress: dict[str, Any], state: dict[str, Any], position: Any = None) -> None:
        """Raises ValueError for a state that is not the one that was saved. One of an earlier version has no seal."""
        if not isinstance(progress, dict):
            raise ValueError("its progress is no JSON object")
        if "sha256" not in progress:
            sealed.unverified(self.directory)
            return
        sums = progress.get("sha256_of", {})
        if progress["sha256"] != sealed.digest({n: v for n, v in progress.items() if n != "sha256"}):
            raise ValueError("the checksum of its progress is of other contents")
        if self.of and progress["of"] != self.of:
            raise ValueError("it is of another run")
        for name, part in state.items():
            if sums.get(name) != _digest(part):
                raise ValueError(f"the checksum of its {name} is of other contents")
        if position is not None and sums.get("data") != sealed.digest(position):
            raise ValueError("the checksum of its data position is of other contents")

    @contextmanager
    def _one_line(self, epoch: int | str = "") -> Iterator[None]:
        """A checkpoint that cannot be read is a UserError."""
        try:
            yield
        except Exception as error:  # Orbax raises that very class, and whatever the libraries below it do
            raise DamagedError(
                self.directory / str(epoch),
                f"is damaged or of another configuration ({_reason(error)})",
                f"remove {self.directory.parent} to train its phase again, or use a new --workdir",
            ) from error

    @contextmanager
    def _written(self) -> Iterator[None]:
        """A checkpoint that cannot be written is a UserError, now or when the next one is."""
        try:
            yield
        except Exception as error:  # as above
            raise UserError(
                f"{self.directory}: a checkpoint cannot be written ({_reason(error)}); free some space there, and the "
                "same command continues from the last epoch"
            ) from error

    def _wait(self) -> None:
        with self._written():
            self.manager.wait_until_finished()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Nothing is being written any more; an error that ends the block is told, not one of the writing behind it."""
        try:
            with self._written():
                self.manager.close()
        except UserError:
            if kind is None:
                raise


def adopt(step: Path, of: str) -> None:
    """Makes the copy of a run's checkpoint one of another run that shares its phase."""
    path = step / "progress" / "metadata"  # where Orbax's handler keeps JSON
    content = json.loads(path.read_text())
    if "sha256" in content:  # otherwise an earlier version made it
        del content["sha256"]
        content["of"] = of
        write_atomically(path, json.dumps(content | {"sha256": sealed.digest(content)}).encode())


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


#: Fields of a progress that are about the checkpoint.
_SEAL = ("of", "sha256_of", "sha256")


def _digest(tree: Any) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return sealed.digest_of_arrays({jax.tree_util.keystr(path): parallel.on_host(leaf) for path, leaf in leaves})


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parallel.replicated())


def _restore_args(target: Any, partial: bool = False) -> ocp.args.PyTreeRestore:
    shardings = ocp.checkpoint_utils.construct_restore_args(target)
    return ocp.args.PyTreeRestore(item=target, restore_args=shardings, partial_restore=partial)
