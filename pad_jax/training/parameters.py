"""Where a phase's parameters come from, and which of them it trains."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from pad_jax.config import Config, PhaseConfig
from pad_jax.methods.base import Phase

Tree = dict[str, Any]


def start(phase: Phase, fresh: Tree, previous: Tree | None) -> Tree:
    """The parameters a phase begins with: `phase.start` copies from the phase before, the rest is fresh.

    Every leaf is a copy of its own: two leaves that share a buffer cannot both be donated.
    """
    if not phase.start:
        return fresh
    assert previous is not None
    flat = flatten_dict(fresh, sep="/")
    source = flatten_dict(previous, sep="/")
    for target, origin in phase.start.items():
        names = [name for name in source if _below(name, origin)]
        if not names:
            raise ValueError(f"phase {phase.name}: {origin!r} matches no parameter of the phase before")
        for name in names:
            flat[target + name[len(origin) :]] = source[name]
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


def adamw(config: Config, phase: PhaseConfig) -> optax.GradientTransformation:
    """AdamW on everything it is given; the gate has a weight decay and, if set, a learning rate of its own."""
    train = config.train

    def schedule(rate: float):
        return optax.linear_schedule(0.0, rate, train.warmup) if train.warmup else rate

    rest = optax.adamw(schedule(phase.learning_rate), weight_decay=train.weight_decay)
    gate = optax.adamw(
        schedule(train.gate_learning_rate or phase.learning_rate), weight_decay=train.gate_weight_decay
    )

    def label(params: Tree) -> Tree:
        return {name: "gate" if name == "gate" else "rest" for name in params}

    return optax.partition({"gate": gate, "rest": rest}, label)
