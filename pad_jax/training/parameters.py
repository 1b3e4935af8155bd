"""Where a phase's parameters come from, and which of them it trains."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from pad_jax.batching.device import DeviceData
from pad_jax.settings import Config
from pad_jax.training.phase import Phase

Tree = dict[str, Any]


def start(phase: Phase, config: Config, fresh: Tree, previous: Tree | None, data: DeviceData) -> Tree:
    """The parameters a phase begins with: `start` copies from the phase before, `fill` from data, the rest is fresh.

    Every leaf is a copy of its own: two leaves that share a buffer cannot both be donated. Raises ValueError for a path
    that names nothing.

    Args:
        phase: what says which.
        config: the run's.
        fresh: all parameters as they are drawn.
        previous: all parameters of the phase before; None where `phase.start` is empty.
        data: what `fill` makes values from.
    """
    if not phase.start and not phase.fill:
        return fresh
    flat = flatten_dict(fresh, sep="/")
    source = flatten_dict(previous or {}, sep="/")
    for target, fill in phase.fill.items():
        if target not in flat:
            raise ValueError(f"phase {phase.name}: {target!r} is not a parameter; there are {', '.join(flat)}")
        values = jnp.asarray(fill(config, data, flat[target].shape), flat[target].dtype)
        if values.shape != flat[target].shape:
            raise ValueError(f"phase {phase.name}: {target!r} is {flat[target].shape}, not {values.shape}")
        flat[target] = values
    for target, origin in phase.start.items():
        names = [name for name in source if _below(name, origin)]
        if not names:
            raise ValueError(f"phase {phase.name}: {origin!r} matches no parameter of the phase before")
        for name in names:
            flat[target + name[len(origin) :]] = source[name] * phase.scale.get(target, 1)
    return jax.tree.map(lambda x: jnp.array(x, copy=True), unflatten_dict(flat, sep="/"))


def split(params: Tree, keep: Sequence[str]) -> tuple[Tree, Tree]:
    """(trained, kept): `keep` are paths, each naming every leaf below it; a path that matches none is an error."""
    flat = flatten_dict(params, sep="/")
    for path in keep:
        if not any(_below(name, path) for name in flat):
            raise ValueError(f"frozen path {path!r} matches no parameter; there are {', '.join(flat)}")
    frozen = {name for name in flat if any(_below(name, path) for path in keep)}
    parts = ({n: v for n, v in flat.items() if (n in frozen) == kept} for kept in (False, True))
    trained, kept = (unflatten_dict(part, sep="/") for part in parts)
    return trained, kept


def _below(name: str, path: str) -> bool:
    return name == path or name.startswith(path + "/")
