"""One optimizer step: gradients of what is trained, summed over devices, and the update."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pad_jax.config import Config
from pad_jax.data.batches import Batch, DeviceData
from pad_jax.models.scorer import Scorer


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
    optimizer: optax.GradientTransformation,
    scorer: Scorer,
    config: Config,
    state: TrainState,
    batch: Batch,
    data: DeviceData,
    key: PRNGKeyArray | None,
    axis: str | None = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One step of AdamW on the sum of weight * mean over the parts of `loss_function`.

    With `axis`, sums and counts are added over the devices of that mapped axis before they are divided, and so are
    the gradients: the step is the same function of the whole batch on any number of devices.

    Returns the new state and scalars: each part and the whole `loss`.
    """

    def total(x):
        return jax.lax.psum(x, axis) if axis and jax.lax.axis_size(axis) > 1 else x

    def local_loss(params):
        parts = loss_function(scorer, config, merge(params, state.frozen), batch, data, key)
        shares = {name: mean.total / jnp.maximum(total(mean.entries), 1) for name, (_, mean) in parts.items()}
        loss = sum(weight * shares[name] for name, (weight, _) in parts.items())
        return loss, shares | {"loss": loss}

    gradients, metrics = jax.grad(local_loss, has_aux=True)(state.params)
    gradients, metrics = total(gradients), total(metrics)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, state.frozen, opt_state, state.step + 1), metrics


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dictionaries without a common leaf, as one."""
    merged = dict(first)
    for name, value in second.items():
        merged[name] = merge(merged[name], value) if name in merged else value
    return merged
