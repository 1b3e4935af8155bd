"""PAD: pre-train, align, disentangle (paper, section 3 and Algorithm 1).

Each phase is a pure loss function of its parameters, and the training step that minimises it.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from pad_jax.config import Config
from pad_jax.data.batches import Batch, DeviceData
from pad_jax.losses.mean import Mean, masked_mean
from pad_jax.losses.mmd import mk_mmd
from pad_jax.methods.base import Forward, Losses, Method, Phase, expert_loss, forward, fused_loss
from pad_jax.models.scorer import Params, Scorer
from pad_jax.training.step import train_step


def pretrain_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """Phase 1: the recommendation loss (Eq. 1)."""
    return {"rec": (1.0, fused_loss(scorer, config, params, batch, forward(scorer, config, params, batch, data, key)))}


def align_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """Phase 2: L = L_REC + gamma * L_MK-MMD over the aligned expert (Eq. 4-7)."""
    seen = forward(scorer, config, params, batch, data, key)
    mmd = alignment(config, batch, seen)
    return {"rec": (1.0, fused_loss(scorer, config, params, batch, seen)), "mmd": (config.mmd.weight, mmd)}


def finetune_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """Phase 3: the recommendation loss of the fused logit (Eq. 8-11).

    With `experts.supervise="each"` every expert that is trained has the recommendation loss of its own logit, and the
    fused logit trains the gate alone: an expert that has learned the training events by heart leaves nothing to learn
    for the others under a common loss, and they are needed where it has seen too little.
    """
    seen = forward(scorer, config, params, batch, data, key)
    if config.experts.supervise == "fused":
        return {"rec": (1.0, fused_loss(scorer, config, params, batch, seen))}
    gate = fused_loss(scorer, config, params, batch, jax.lax.stop_gradient(seen))
    trained = ("text",) if config.experts.freeze_carried else scorer.experts
    return {"gate": (1.0, gate)} | {e: (1.0, expert_loss(scorer, config, batch, seen, e)) for e in trained}


def alignment(config: Config, batch: Batch, seen: Forward) -> Mean:
    """L_MK-MMD (Eq. 5) between projected text rows and ID rows, a mean over groups of `mmd.group` users.

    The rows of a group are its window events and, with bce, its negatives, an item as often as it occurs. A group of
    users is the sample that the official code calls a batch on one GPU; it does not depend on the number of devices.

    Differs: empty slots take no part, unless `mmd.include_padding`, which fills each group with pairs of padding rows
    as the official code does (69 % of its rows on Prime Pantry).
    """
    event_grid, negative_grid = batch.groups
    aligned = seen.items["aligned"]
    assert aligned.text_part is not None
    assert aligned.id_part is not None
    pairs = [(event_grid, seen.event)] + ([(negative_grid, seen.drawn)] if config.loss == "bce" else [])
    text, ids = (
        jnp.concatenate([grid.to_grid(part[rows]) for grid, rows in pairs], axis=1)
        for part in (aligned.text_part, aligned.id_part)
    )
    mask = jnp.concatenate([grid.mask for grid, _ in pairs], axis=1)
    filled = mask.sum(axis=1) >= 2
    if config.mmd.include_padding:  # the last window event of a batch is always in the unused tail: item 0
        padding = seen.event[-1]
        text = jnp.where(mask[..., None], text, aligned.text_part[padding])
        ids = jnp.where(mask[..., None], ids, aligned.id_part[padding])
        mask = jnp.ones_like(mask)
    distance = functools.partial(
        mk_mmd, kernel=config.mmd.kernel, scales=config.mmd.scales, estimator=config.mmd.estimator
    )
    return masked_mean(jax.vmap(distance)(text, ids, mask), filled)


pretrain_step = functools.partial(train_step, pretrain_loss)
align_step = functools.partial(train_step, align_loss)
finetune_step = functools.partial(train_step, finetune_loss)


def pad(config: Config) -> Method:
    """Pre-train the IDs, align a copy of them with the text, fine-tune three experts (Algorithm 1).

    The aligned expert starts from the pre-trained ID rows times `experts.id_scale`, and from the pre-trained encoder
    if `experts.copy_encoder`. The pre-trained expert waits untouched for phase 3, which adds the text expert and
    trains all three, or the new one alone with `experts.freeze_carried`.
    """
    aligned = {"tables/aligned": "tables/id"}
    if config.experts.copy_encoder:
        aligned["encoders/aligned"] = "encoders/id"
    pretrained = ("tables/id", "encoders/id")
    carried = ("tables", "towers/aligned", "encoders/id", "encoders/aligned")
    return Method(
        "pad",
        (
            Phase("pretrain", ("id",), pretrain_step),
            Phase(
                "align",
                ("aligned",),
                align_step,
                start=aligned | {path: path for path in pretrained},
                scale={"tables/aligned": config.experts.id_scale},
                keep=pretrained,
            ),
            Phase(
                "finetune",
                ("id", "aligned", "text"),
                finetune_step,
                start={path: path for path in carried},
                keep=carried if config.experts.freeze_carried else (),
            ),
        ),
    )


def sasrec(config: Config) -> Method:
    """The recommender on item IDs alone, with `config.backbone`: phase 1, with the epochs of all phases together."""
    del config
    return Method("sasrec", (Phase("pretrain", ("id",), pretrain_step, budget=("pretrain", "align", "finetune")),))
