"""Checkpoints of one phase: the latest and the best, written by Orbax, atomic."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from pad_jax import parallel
from pad_jax.errors import UserError


class Checkpoints:
    """Saves (state, data position, progress) once an epoch; keeps the latest and the best, the first of equals."""

    def __init__(self, directory: Path):
        def value(metrics):
            return metrics["best"]

        self.directory = directory.absolute()
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
        saved = self.manager.save(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(parallel.as_global(state)),
                data=ocp.args.JsonSave(position),
                progress=ocp.args.JsonSave(progress),
            ),
            metrics={"best": progress["best"] if better else -1e300},
        )
        if not saved:
            raise UserError(f"{self.directory}: epoch {epoch} was not saved, a later one is there; use a new --workdir")

    def latest(self) -> int | None:
        return self.manager.latest_step()

    def restore(self, epoch: int, state: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """The state with the shapes of `state`, replicated on all devices; data position; progress."""
        self.manager.wait_until_finished()
        arguments = ocp.args.Composite(
            state=_restore_args(jax.tree.map(_abstract, state)),
            data=ocp.args.JsonRestore(),
            progress=ocp.args.JsonRestore(),
        )
        with self._one_line(epoch):
            restored = self.manager.restore(epoch, args=arguments)
        return restored["state"], restored["data"], restored["progress"]

    def parameters(self, epoch: int) -> tuple[Any, Any]:
        """Trained and frozen parameters alone, replicated on all devices."""
        self.manager.wait_until_finished()
        with self._one_line(epoch):
            tree = self.manager.item_metadata(epoch)["state"]
            target = {name: jax.tree.map(_abstract, tree[name]) for name in ("params", "frozen")}
            arguments = ocp.args.Composite(state=_restore_args(target, partial=True))
            state = self.manager.restore(epoch, args=arguments)["state"]
        return state["params"], state["frozen"]

    @contextmanager
    def _one_line(self, epoch: int) -> Iterator[None]:
        """A checkpoint that cannot be read is a UserError."""
        try:
            yield
        except (ValueError, TypeError, KeyError, OSError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"{self.directory}/{epoch} is damaged or of another configuration ({reason}); use a new --workdir"
            ) from error

    def close(self) -> None:
        self.manager.wait_until_finished()
        self.manager.close()


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parallel.replicated())


def _restore_args(target: Any, partial: bool = False) -> ocp.args.PyTreeRestore:
    shardings = ocp.checkpoint_utils.construct_restore_args(target)
    return ocp.args.PyTreeRestore(item=target, restore_args=shardings, partial_restore=partial)
