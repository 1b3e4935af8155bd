"""Checkpoints of one phase: the latest and the best, written by Orbax, atomic."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from pad_jax.errors import UserError


class Checkpoints:
    """Saves (state, data position, progress) once an epoch; keeps the latest and the best by `progress["value"]`."""

    def __init__(self, directory: Path):
        def value(metrics):
            return metrics["value"]

        self.directory = directory.absolute()
        self.manager = ocp.CheckpointManager(
            self.directory,
            item_names=("state", "data", "progress"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy([LatestN(1), BestN(get_metric_fn=value, n=1)]),
                best_fn=value,
                best_mode="max",
                cleanup_tmp_directories=True,
            ),
        )

    def save(self, epoch: int, state: Any, position: dict[str, Any], progress: dict[str, Any]) -> None:
        saved = self.manager.save(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(position),
                progress=ocp.args.JsonSave(progress),
            ),
            metrics={"value": progress["value"]},
        )
        if not saved:
            raise UserError(f"{self.directory}: epoch {epoch} was not saved, a later one is there; use a new --workdir")

    def latest(self) -> int | None:
        return self.manager.latest_step()

    def best(self) -> int | None:
        return self.manager.best_step()

    def restore(self, epoch: int, state: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """The state with the shapes of `state`, replicated on all devices; data position; progress."""
        sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec())

        def abstract(x):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

        try:
            restored = self.manager.restore(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(jax.tree.map(abstract, state)),
                    data=ocp.args.JsonRestore(),
                    progress=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError, FileNotFoundError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"{self.directory}/{epoch} does not fit this configuration ({first}); use a new --workdir") from error
        return restored["state"], restored["data"], restored["progress"]

    def close(self) -> None:
        self.manager.wait_until_finished()
        self.manager.close()
