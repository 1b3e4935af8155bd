"""One optimizer step: gradients of what is trained, summed over devices, and the update."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pad_jax.batching.batch import Batch, scored_items
from pad_jax.batching.device import DeviceData
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import Scorer
from pad_jax.settings import Config
from pad_jax.training.optimizer import Optimizer, update_rows


class TrainState(NamedTuple):
    """What a phase trains (`params`), what it carries along untouched (`frozen`), and the optimizer's state.

    `params` and `frozen` are nested dictionaries without a common leaf. The loss is differentiated in `params` only
    and the optimizer has never heard of `frozen`.
    """

    params: dict[str, Any]
    frozen: dict[str, Any]
    opt_state: Any
    step: Int[Array, ""]


def train_step(
    loss_function: Callable[..., Mapping[str, tuple[float, Any]]],
    optimizer: Optimizer,
    scorer: Scorer,
    config: Config,
    state: TrainState,
    batch: Batch,
    data: DeviceData,
    key: PRNGKeyArray | None,
    axis: str | None = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One step of `optimizer` on the sum of weight * mean over the parts of `loss_function`.

    Args:
        loss_function: of a phase, see `LossFunction`.
        optimizer: of the phase.
        scorer: of the phase.
        config: the run's.
        state: what the step starts from.
        batch: users of this device.
        data: what stays on the device.
        key: draws dropout; None for none.
        axis: name of the mapped axis, if there is one.

    With `axis`, sums and counts are added over the devices of that mapped axis before they are divided, and so are
    the gradients: the step is the same function of the whole batch on any number of devices.

    Returns the new state and scalars: each part and the whole `loss`.
    """

    alone = axis is None or jax.lax.axis_size(axis) == 1

    def total(x):
        return x if alone else jax.lax.psum(x, axis)

    def mean(x):
        return x if alone else jax.lax.pmean(x, axis)

    def of_all_devices(x):
        return x if alone else jax.lax.all_gather(x, axis, tiled=True)

    def local_loss(trained, rows):
        params = merge(merge(trained, {"tables": tables, "rows": rows}), state.frozen)
        parts = loss_function(scorer, config, params, batch, data, key)
        shares = {name: part.total / jnp.maximum(total(part.entries), 1) for name, (_, part) in parts.items()}
        loss = sum(weight * shares[name] for name, (weight, _) in parts.items())
        return loss, shares | {"loss": loss}

    trained, tables = optimizer.split(state.params)
    ids = scored_items(config, batch, len(data.bucket)).ids
    rows = {name: jnp.zeros((len(ids), table.shape[1]), table.dtype) for name, table in tables.items()}
    (gradients, by_row), metrics = jax.grad(local_loss, argnums=(0, 1), has_aux=True)(trained, rows)
    gradients, metrics = total(gradients), total(metrics)
    updates, dense = optimizer.dense.update(gradients, state.opt_state["dense"], trained)
    params, moments = optax.apply_updates(trained, updates), {}
    bounded = {name: partial(EXPERTS[name].bounded, config) for name in state.params.get("tables", {})}
    if "tables" in params:
        params["tables"] = {name: bounded[name](table) for name, table in params["tables"].items()}
    if tables:
        ids, by_row = of_all_devices((ids, by_row))
        params["tables"] = dict(params.get("tables", {}))
        for name, table in tables.items():
            params["tables"][name], moments[name] = update_rows(
                optimizer,
                table,
                state.opt_state["tables"][name],
                ids,
                by_row[name],
                state.step,
                mean,
                bounded[name],
            )
    return TrainState(params, state.frozen, {"dense": dense, "tables": moments}, state.step + 1), metrics


def gradient_norms(
    loss_function: Callable[..., Mapping[str, tuple[float, Any]]],
    scorer: Scorer,
    config: Config,
    state: TrainState,
    batch: Batch,
    data: DeviceData,
    key: PRNGKeyArray | None,
    axis: str,
) -> dict[str, Float[Array, ""]]:
    """The norm of the gradient of each part of a loss, times its weight.

    Args:
        loss_function: of a phase, see `LossFunction`.
        scorer: of the phase.
        config: the run's.
        state: where the gradient is taken.
        batch: users of this device.
        data: what stays on the device.
        key: draws dropout; None for none.
        axis: name of the mapped axis.
    """

    def shares(params):
        parts = loss_function(scorer, config, merge(params, state.frozen), batch, data, key)
        return {n: w * part.total / jnp.maximum(jax.lax.psum(part.entries, axis), 1) for n, (w, part) in parts.items()}

    found, pull_back = jax.vjp(shares, state.params)
    gradients = {name: pull_back({n: jnp.float32(n == name) for n in found})[0] for name in found}
    return {name: optax.tree.norm(jax.lax.psum(gradient, axis)) for name, gradient in gradients.items()}


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dictionaries without a common leaf, as one."""
    merged = dict(first)
    for name, value in second.items():
        merged[name] = merge(merged[name], value) if name in merged else value
    return merged
