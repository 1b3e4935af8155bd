"""AdamW: on everything that is trained, or lazily on the rows of the tables that a batch looks up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from pad_jax.errors import UserError
from pad_jax.losses.recommendation import LOSSES
from pad_jax.models.experts import EXPERTS
from pad_jax.registry import SECTIONS
from pad_jax.settings import Config, setting
from pad_jax.training.phase import Limits

Tree = dict[str, Any]
B1, B2, EPSILON = 0.9, 0.999, 1e-8  # the defaults of torch and optax


@dataclass(frozen=True)
class OptimizerSettings:
    tables: str = setting(
        "dense",
        "AdamW on every row of the ID tables [C], or lazily on those that a batch looks up",
        choices=("dense", "lazy"),
    )

    def check(self, config: Config) -> None:
        if self.tables == "lazy" and LOSSES[config.loss].needs == "catalogue":
            raise UserError(
                f"config.optimizer.tables=lazy updates the rows that a batch looks up, and config.loss={config.loss} "
                "looks up all: set --config.loss=sampled_softmax or bce, or leave the tables dense"
            )


SECTIONS.register("optimizer", OptimizerSettings)


class Moments(NamedTuple):
    """Running means of a table's gradients and of their squares."""

    mean: Float[Array, "I D"]
    square: Float[Array, "I D"]


class Optimizer(NamedTuple):
    """AdamW of all parameters, or with `lazy` of all but the tables, whose rows are updated by `update_rows`."""

    dense: optax.GradientTransformation
    rate: float
    decay: float
    lazy: bool

    def split(self, params: Tree) -> tuple[Tree, Tree]:
        """What `dense` updates, and the tables that are updated by rows."""
        if not self.lazy:
            return params, {}
        tables = params.get("tables", {})
        rows = {name: table for name, table in tables.items() if EXPERTS[name].by_item}
        rest = {name: value for name, value in params.items() if name != "tables"}
        shared = {name: table for name, table in tables.items() if name not in rows}
        return rest | ({"tables": shared} if shared else {}), rows

    def init(self, params: Tree) -> Tree:
        rest, tables = self.split(params)
        moments = {name: Moments(jnp.zeros_like(table), jnp.zeros_like(table)) for name, table in tables.items()}
        return {"dense": self.dense.init(rest), "tables": moments}


def adamw(config: Config, limits: Limits) -> Optimizer:
    """The optimizer of a phase; the gate has a weight decay and a learning rate of its own."""
    rate, decay = limits.learning_rate, config.train.weight_decay
    groups = {
        "rest": optax.adamw(rate, B1, B2, EPSILON, weight_decay=decay),
        "gate": optax.adamw(limits.gate_rate, B1, B2, EPSILON, weight_decay=config.train.gate_weight_decay),
    }

    def label(params: Tree) -> Tree:
        return {name: name if name == "gate" else "rest" for name in params}

    return Optimizer(optax.partition(groups, label), rate, decay, config.optimizer.tables == "lazy")


def update_rows(
    optimizer: Optimizer,
    table: Float[Array, "I D"],
    moments: Moments,
    ids: Int[Array, " R"],
    gradient: Float[Array, "R D"],
    step: Int[Array, ""],
    same: Callable[[Array], Array] = lambda x: x,
    bounded: Callable[[Array], Array] = lambda x: x,
) -> tuple[Float[Array, "I D"], Moments]:
    """AdamW on the rows `ids` of a table; an item that stands there twice has the sum of its gradients.

    Cost and memory traffic grow with R and not with N. It is not AdamW of the whole table: a row that no batch looks
    up keeps its value and its moments, without decay of either, as in torch's SparseAdam and TensorFlow Addons'
    LazyAdam; the bias correction counts all steps.

    Args:
        optimizer: its rate and decay.
        table: the values.
        moments: of the table.
        ids: rows that a batch has looked up.
        gradient: of each of them.
        step: the number of steps before this one.
        same: makes devices agree that update the same table: a sum of several gradients may round differently on each.
        bounded: brings rows back to where they may be, see `Expert.bounded`.
    """
    rows, owner = jnp.unique(ids, size=len(ids), fill_value=len(table), return_inverse=True)
    total = same(jax.ops.segment_sum(gradient, owner, len(ids)))
    old = Moments(*(x.at[rows].get(mode="clip") for x in moments))
    mean = B1 * old.mean + (1 - B1) * total
    square = B2 * old.square + (1 - B2) * total**2
    count = (step + 1).astype(table.dtype)
    direction = (mean / (1 - B1**count)) / (jnp.sqrt(square / (1 - B2**count)) + EPSILON)
    value = table.at[rows].get(mode="clip")
    value -= optimizer.rate * (direction + optimizer.decay * value)

    def put(whole, new):
        return whole.at[rows].set(new, mode="drop", indices_are_sorted=True)

    return put(table, bounded(value)), Moments(put(moments.mean, mean), put(moments.square, square))
