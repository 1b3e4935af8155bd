"""What a method is: a set of experts, and an ordered list of phases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from pad_jax.config import Config, PhaseConfig
from pad_jax.data.batches import Batch, DeviceData, scored_items
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
    budget: tuple[str, ...] = ()  # phases of the configuration whose epochs and minutes it may use; empty: its own
    rate: str = ""  # phase of the configuration whose learning rate it has; empty: its own
    gate: str = ""  # kind of gate; empty: config.gate.kind
    by_loss: bool = False  # its best epoch is the one of least training loss: it trains no recommender
    critics: Callable[[Config, PRNGKeyArray], Params] | None = None  # fresh parameters that the loss alone has

    def limits(self, config: Config) -> PhaseConfig:
        """Its learning rate, and the most epochs and minutes it is given; 0 minutes are no limit."""
        parts = [getattr(config, name) for name in self.budget or (self.name,)]
        rate = getattr(config, self.rate or self.name).learning_rate
        return PhaseConfig(sum(part.epochs for part in parts), rate, sum(part.minutes for part in parts))

    def scorer(self, config: Config) -> Scorer:
        """The scorer of its experts."""
        gate = replace(config.gate, kind=self.gate or config.gate.kind)
        return Scorer(config.model, gate, config.backbone, self.experts, config.data.buckets, config.data.length)

    def fresh(self, config: Config, key: PRNGKeyArray, items: int, text_width: int) -> dict[str, Any]:
        """Fresh parameters of everything in it."""
        params = self.scorer(config).init(key, items, text_width)
        if self.critics is not None:
            params["critics"] = self.critics(config, jax.random.fold_in(key, 2**31))
        return params


@dataclass(frozen=True)
class Method:
    """Phases in order; each starts from the best checkpoint of the one before."""

    name: str
    phases: tuple[Phase, ...]

    @property
    def reads_text(self) -> bool:
        return any(expert != "id" for phase in self.phases for expert in phase.experts)


class Forward(NamedTuple):
    """What the scorer makes of a batch: users of every expert, and vectors of the R items of `scored_items`."""

    users: Float[Array, "T F"]
    ids: Int[Array, " R"]
    items: dict[str, ItemVectors]
    bucket: Int[Array, " R"]
    prior: Float[Array, " R"] | None  # see `log_prior`
    event: Int[Array, " V"]  # where each window event stands among the R items
    drawn: Int[Array, " S"]  # where each drawn item stands; none for ce
    drawn_ids: Int[Array, " S"]
    catalogue: int  # N

    def events_of(self, x: Float[Array, "R ..."]) -> Float[Array, "V ..."]:
        """Rows of the window events among rows of the R items."""
        return x[self.event]


def forward(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Forward:
    """Every expert over the batch. `key` draws dropout; without it there is none."""
    bucket = jnp.asarray(data.bucket)
    scored = scored_items(config, batch, len(bucket))
    items = scorer.item_vectors(params, scored.ids, data, key)
    inputs = jax.tree.map(lambda x: batch.inputs_of(x[scored.event]), vectors_of(items))
    users = scorer.users(params, inputs, batch.layout, key)
    prior = None if scorer.experts == ("id",) else log_prior(config, jnp.asarray(data.counts)[scored.ids])
    drawn = scored.drawn, scored.drawn_ids
    return Forward(users, scored.ids, items, bucket[scored.ids], prior, scored.event, *drawn, len(bucket) - 1)


def log_prior(config: Config, count: Int[Array, " R"]) -> Float[Array, " R"] | None:
    """What training adds to the logits of items with `count` training events, and ranking does not; None for nothing.

    `train.adjustment` * log(count) (Menon et al. 2021), and for an item that training never meets a number so low that
    it is no candidate: as a sure negative it would be pushed below all others, its text with it. IDs alone are trained
    without: how often an item was met is most of what they know of a cold one.
    """
    if config.train.adjustment == 0:
        return None
    return jnp.where(count > 0, config.train.adjustment * jnp.log(jnp.maximum(count, 1).astype(jnp.float32)), -1e9)


def by_group(
    batch: Batch, seen: Forward, values: Sequence[Shaped[Array, "R ..."]], negatives: bool = False
) -> tuple[tuple[Shaped[Array, "G n ..."], ...], Bool[Array, "G n"]]:
    """Values of the R items as samples of `mmd.group` users each.

    Each sample holds the window events of its users, an item as often as it occurs, and with `negatives` the items
    drawn against them. Returns the samples and which of their n rows are filled.
    """
    event_grid, negative_grid = batch.groups
    pairs = [(event_grid, seen.event)] + ([(negative_grid, seen.drawn)] if negatives else [])
    mask = jnp.concatenate([grid.mask for grid, _ in pairs], axis=1)
    return tuple(jnp.concatenate([grid.to_grid(x[rows]) for grid, rows in pairs], axis=1) for x in values), mask


def recommendation_loss(
    config: Config, batch: Batch, users: Float[Array, "T X"], vectors: Float[Array, "R X"], seen: Forward
) -> Mean:
    """L_REC (`config.loss`) of scores <users, vectors>, the vectors being those of the R items of `seen`."""
    if seen.prior is not None:
        users = jnp.concatenate([users, jnp.ones_like(users[:, :1])], axis=1)
        vectors = jnp.concatenate([vectors, seen.prior[:, None]], axis=1)
    if config.loss == "ce":
        return cross_entropy(users, vectors, batch.targets, batch.valid)
    positive, drawn = batch.targets_of(seen.events_of(vectors)), vectors[seen.drawn]
    if config.loss == "bce":
        return binary_cross_entropy((users * positive).sum(-1), (users * drawn).sum(-1), batch.valid)
    return sampled_softmax(users, positive, drawn, batch.targets, seen.drawn_ids, seen.catalogue, batch.valid)


def fused_loss(scorer: Scorer, config: Config, params: Params, batch: Batch, seen: Forward) -> Mean:
    """L_REC of the gated sum of the experts' logits (Eq. 11)."""
    return recommendation_loss(config, batch, seen.users, scorer.gated(params, seen.items, seen.bucket), seen)


def expert_loss(scorer: Scorer, config: Config, batch: Batch, seen: Forward, expert: str) -> Mean:
    """L_REC of one expert's logit alone."""
    number, width = scorer.experts.index(expert), scorer.model.width
    users = seen.users[:, number * width : (number + 1) * width]
    if expert == "id":
        seen = seen._replace(prior=None)
    return recommendation_loss(config, batch, users, seen.items[expert].vector, seen)
