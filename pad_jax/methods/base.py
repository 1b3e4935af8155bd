"""What a method is: a set of experts, and an ordered list of phases."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from pad_jax.config import Config, PhaseConfig
from pad_jax.data.batches import Batch, DeviceData
from pad_jax.losses.mean import Mean
from pad_jax.losses.recommendation import binary_cross_entropy, cross_entropy, sampled_softmax
from pad_jax.models.scorer import ItemVectors, Params, Scorer, vectors_of

#: Named parts of a loss: (weight, mean) each. The loss is the sum of weight * mean.
Losses = dict[str, tuple[float, Mean]]
LossFunction = Callable[[Scorer, Config, Params, Batch, DeviceData, PRNGKeyArray | None], Losses]


@dataclass(frozen=True)
class Phase:
    """One training run: which experts it scores with, where its parameters come from, what moves.

    `start` maps a path of this phase's parameters ("tables/aligned") to a path of the phase before ("tables/id");
    what it does not name is fresh. `scale` multiplies copies. `keep` are paths that are carried along without being
    trained: they are neither differentiated nor known to the optimizer. A path names every leaf below it.
    """

    name: str
    experts: tuple[str, ...]
    step: Callable[..., Any]
    start: Mapping[str, str] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    budget: tuple[str, ...] = ()  # phases of the configuration whose epochs this one may use; empty: its own

    def limits(self, config: Config) -> PhaseConfig:
        """Learning rate and time limit of the phase."""
        return getattr(config, self.name)

    def epochs(self, config: Config) -> int:
        """The most epochs it is given."""
        return sum(getattr(config, name).epochs for name in self.budget or (self.name,))


@dataclass(frozen=True)
class Method:
    """Phases in order; each starts from the best checkpoint of the one before."""

    name: str
    phases: tuple[Phase, ...]

    @property
    def reads_text(self) -> bool:
        return any(expert != "id" for phase in self.phases for expert in phase.experts)


def recommendation_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> tuple[Mean, dict[str, ItemVectors], dict[str, ItemVectors]]:
    """L_REC (`config.loss`) over the fused logit of the scorer's experts.

    Returns the loss, every expert's vectors of the window events [V] and, with bce, those of the negatives [T]
    (else none): the alignment reads them too. `key` draws dropout; without it there is none.
    """
    dropout_key, sample_key = (None, jax.random.key(0)) if key is None else jax.random.split(key)
    catalogue = jnp.arange(data.bucket.shape[0])
    if config.loss == "ce":
        items = scorer.item_vectors(params, catalogue, data, catalogue, dropout_key)
        events = jax.tree.map(lambda x: x[batch.items], items)
        inputs = jax.tree.map(batch.inputs_of, vectors_of(events))
        users = scorer.users(params, inputs, batch.layout, dropout_key)
        gated = scorer.gated(params, items, data.bucket)
        return cross_entropy(users, gated, batch.targets, batch.valid), events, {}

    if config.loss == "bce":
        drawn, drawn_uid = batch.negatives, batch.layout.uid
    else:
        drawn_uid = jnp.arange(config.train.sampled)
        drawn = jax.random.randint(sample_key, drawn_uid.shape, 1, len(catalogue))
    ids = jnp.concatenate([batch.items, drawn])
    uid = jnp.concatenate([2 * batch.uid, 2 * drawn_uid + 1])  # events and drawn items share no random draws
    items = scorer.item_vectors(params, ids, data, uid, dropout_key)
    events = jax.tree.map(lambda x: x[: len(batch.items)], items)
    inputs = jax.tree.map(batch.inputs_of, vectors_of(events))
    users = scorer.users(params, inputs, batch.layout, dropout_key)
    gated = scorer.gated(params, items, data.bucket[ids])
    positive, negative = batch.targets_of(gated[: len(batch.items)]), gated[len(batch.items) :]
    if config.loss == "bce":
        loss = binary_cross_entropy((users * positive).sum(-1), (users * negative).sum(-1), batch.valid)
        return loss, events, jax.tree.map(lambda x: x[len(batch.items) :], items)
    loss = sampled_softmax(users, positive, negative, batch.targets, drawn, len(catalogue) - 1, batch.valid)
    return loss, events, {}
