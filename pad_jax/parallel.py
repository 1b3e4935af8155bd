"""The only file that asks for devices or processes: one path, pmap, on one or many, in one process or several."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import psutil
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pad_jax.errors import UserError

AXIS = "data"


def join(coordinator: str, processes: int, process: int) -> None:
    """Makes this process one of several. Raises UserError for a coordinator that cannot be reached or understood."""
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"--coordinator={coordinator}: {error}; it must be host:port of process 0") from error


def is_main() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return jax.process_index() == 0


def processes() -> int:
    """How many processes train together."""
    return jax.process_count()


def devices() -> int:
    """How many devices all processes have together."""
    return jax.device_count()


def on_cpu() -> bool:
    """Whether programs run on the host's own cores."""
    return jax.default_backend() == "cpu"


def accelerators() -> list[str]:
    """The kind of every device that is no CPU."""
    return [device.device_kind for device in jax.devices() if device.platform != "cpu"]


def memory_at_hand() -> tuple[int, str]:
    """Bytes that one device has, and where: an accelerator's own, or its share of what the host has left."""
    device = jax.local_devices()[0]
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics:
        return statistics["bytes_limit"], str(device)
    return psutil.virtual_memory().available // jax.local_device_count(), "host, per device"


def replicate(tree: Any) -> Any:
    """The same values on every device of every process; the source's buffers stay its own."""
    return jax.tree.map(lambda x: jax.device_put(np.asarray(x), replicated()), tree)


def replicated() -> NamedSharding:
    """The sharding of values that every device holds whole."""
    return NamedSharding(_mesh(), PartitionSpec())


def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), (AXIS,))


def as_global(tree: Any) -> Any:
    """What a mapped function returned, which each process sees on its own devices, as values on all of them."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(tree, _mesh(), PartitionSpec())


def replicate_key(key: Any) -> Any:
    """`replicate` for a random key."""
    return jax.random.wrap_key_data(replicate(jax.random.key_data(key)))


def scalar(x: Any) -> float:
    """The value of a replicated scalar."""
    return float(np.asarray(first_replica(x)))


def on_host(x: Any) -> np.ndarray:
    """A replicated array as numpy."""
    return np.asarray(first_replica(x)) if isinstance(x, jax.Array) else np.asarray(x)


def first_replica(tree: Any) -> Any:
    """A replicated tree as seen by one local device."""
    return jax.tree.map(lambda x: x.addressable_shards[0].data, tree)


def local_rows(rows: Any) -> Any:
    """Splits arrays [K, B] over all devices: this process's part, [local devices, K, B / devices]."""
    here = [i for i, device in enumerate(jax.devices()) if device.process_index == jax.process_index()]

    def split(x: np.ndarray) -> np.ndarray:
        whole = x.reshape(len(x), jax.device_count(), -1).swapaxes(0, 1)
        return np.ascontiguousarray(whole[here])

    return jax.tree.map(split, rows)


def over_devices(
    block: Callable[..., Any], devices: Sequence[Any] | None = None, donate: bool = True
) -> Callable[..., Any]:
    """pmap of block(state, data, count, key, rows, caps): rows are split over devices, caps are static.

    The others are the same on every device and come back without a device axis; the state is given up with `donate`.
    """
    return jax.pmap(
        block,
        axis_name=AXIS,
        in_axes=(None, None, None, None, 0),
        out_axes=None,
        static_broadcasted_argnums=(5,),
        donate_argnums=(0,) if donate else (),
        devices=devices,
    )


def wait(name: str) -> None:
    """Until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_batch(batch: int, group: int) -> None:
    """Raises UserError unless a batch divides into devices x whole groups."""
    unit = jax.device_count() * group
    if batch % unit:
        raise UserError(
            f"config.train.batch={batch} must be a multiple of devices x config.mmd.group = "
            f"{jax.device_count()} x {group} = {unit}; set --config.train.batch={-(-batch // unit) * unit}"
        )


@functools.cache
def _gather():
    return jax.pmap(lambda x: jax.lax.all_gather(x, AXIS), axis_name=AXIS, out_axes=None)


def map_rows(function: Callable[..., Any], shared: Any, rows: Any) -> Any:
    """function(shared, rows) with the leading axis of `rows` over all devices; returns the whole result as numpy.

    The leading axis must divide by the device count.
    """
    devices = jax.device_count()
    here = [i for i, device in enumerate(jax.devices()) if device.process_index == jax.process_index()]
    spread = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:])[here], rows)
    result = function(shared, spread)
    gathered = jax.tree.map(lambda x: np.asarray(first_replica(_gather()(x))), result)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), gathered)
