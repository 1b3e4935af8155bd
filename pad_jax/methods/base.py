"""What the losses of all methods are made from: the forward pass over a batch, and L_REC of what it gives."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from pad_jax.batching.batch import Batch, scored_items
from pad_jax.batching.device import DeviceData
from pad_jax.losses.mean import Mean
from pad_jax.losses.recommendation import LOSSES, Logits
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import Items, ItemVectors, Params, Scorer, vectors_of
from pad_jax.settings import Config
from pad_jax.training.phase import Losses, LossFunction, Method, Phase

__all__ = [
    "Forward",
    "LossFunction",
    "Losses",
    "Method",
    "Phase",
    "by_group",
    "expert_loss",
    "forward",
    "fused_loss",
    "log_prior",
    "recommendation_loss",
]


class Forward(NamedTuple):
    """What the scorer makes of a batch: users of every expert, and vectors of the R items of `scored_items`."""

    users: dict[str, Any]  # [T, D] each
    ids: Int[Array, " R"]  # item numbers
    items: dict[str, ItemVectors]
    bucket: Int[Array, " R"]
    counts: Int[Array, " R"]  # how often training met each
    prior: Float[Array, " R"] | None  # see `log_prior`
    event_row: Int[Array, " V"]  # where each window event stands among the R items
    drawn_row: Int[Array, " S"]  # where each drawn item stands; none for a loss over the catalogue
    drawn_ids: Int[Array, " S"]
    catalogue: int  # N

    def events_of(self, x: Shaped[Array, "R ..."]) -> Shaped[Array, "V ..."]:
        """Rows of the window events among rows of the R items."""
        return x[self.event_row]


def forward(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Forward:
    """Every expert over the batch.

    Args:
        scorer: of the phase.
        config: the run's.
        params: of all experts.
        batch: the users of the step.
        data: what stays on the device.
        key: draws dropout; without it there is none.
    """
    bucket = jnp.asarray(data.bucket)
    scored = scored_items(config, batch, len(bucket))
    items = scorer.item_vectors(params, scored.ids, data, key)
    inputs = jax.tree.map(lambda x: batch.inputs_of(x[scored.event_row]), vectors_of(items))
    counts = jnp.asarray(data.counts)
    met = batch.inputs_of(counts[batch.event_item])
    users = scorer.users(params, inputs, batch.layout, met, key, batch.targets)
    reads_text = any(EXPERTS[expert].reads_text for expert in scorer.experts)
    of_items = bucket[scored.ids], counts[scored.ids]
    prior = log_prior(config, counts[scored.ids]) if reads_text else None
    drawn = scored.drawn_row, scored.drawn_ids
    return Forward(users, scored.ids, items, *of_items, prior, scored.event_row, *drawn, len(bucket) - 1)


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
    pairs = [(event_grid, seen.event_row)] + ([(negative_grid, seen.drawn_row)] if negatives else [])
    mask = jnp.concatenate([grid.mask for grid, _ in pairs], axis=1)
    return tuple(jnp.concatenate([grid.to_grid(x[rows]) for grid, rows in pairs], axis=1) for x in values), mask


def recommendation_loss(
    scorer: Scorer, config: Config, batch: Batch, seen: Forward, users: Mapping[str, Any], items: Items
) -> Mean:
    """L_REC (`config.loss`) of the scores of `users` and `items`.

    Args:
        scorer: of the phase.
        config: the run's.
        batch: the users of the step.
        seen: the forward pass, whose prior is added.
        users: the user side of some experts.
        items: the item side of the same experts, for the R items of `seen`.
    """
    rows = seen.catalogue + 1
    joined, vectors = scorer.joined(users), items.vectors
    if seen.prior is not None:
        joined = jnp.concatenate([joined, jnp.ones((len(joined), 1), joined.dtype)], axis=1)
        vectors = jnp.concatenate([vectors, seen.prior[:, None]], axis=1)
    loss = LOSSES[config.loss]
    logits = Logits(
        users=joined,
        items=vectors,
        others=scorer.others(users, items, rows),
        target=batch.targets,
        valid=batch.valid,
        of_targets=lambda x: batch.targets_of(seen.events_of(x)),
        drawn_row=seen.drawn_row,
        drawn_ids=seen.drawn_ids,
        catalogue=seen.catalogue,
        needs=loss.needs,
    )
    return loss.value(logits, config)


def fused_loss(scorer: Scorer, config: Config, params: Params, batch: Batch, seen: Forward) -> Mean:
    """L_REC of the gated sum of the experts' logits (Eq. 11)."""
    gated = scorer.gated(params, seen.items, seen.bucket, seen.counts)
    return recommendation_loss(scorer, config, batch, seen, seen.users, gated)


def expert_loss(scorer: Scorer, config: Config, batch: Batch, seen: Forward, expert: str) -> Mean:
    """L_REC of one expert's logit alone."""
    if not EXPERTS[expert].reads_text:
        seen = seen._replace(prior=None)
    alone = Scorer(config, (expert,), scorer.gate)
    items = alone.weighted({expert: seen.items[expert].vector}, jnp.ones((len(seen.bucket), 1)))
    return recommendation_loss(alone, config, batch, seen, {expert: seen.users[expert]}, items)
