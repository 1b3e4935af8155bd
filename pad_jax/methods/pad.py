"""PAD: pre-train, align, disentangle (paper, section 3 and Algorithm 1).

Each phase is a pure loss function of its parameters, and the training step that minimises it.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from pad_jax.batching.batch import Batch
from pad_jax.batching.device import DeviceData
from pad_jax.errors import UserError
from pad_jax.losses.contrastive import info_nce
from pad_jax.losses.mean import Mean, masked_mean
from pad_jax.losses.mmd import mk_mmd
from pad_jax.losses.recommendation import LOSSES
from pad_jax.methods.base import (
    Forward,
    Losses,
    Method,
    Phase,
    by_group,
    forward,
    fused_loss,
)
from pad_jax.methods.registry import METHODS
from pad_jax.models.scorer import Params, Scorer
from pad_jax.registry import SECTIONS
from pad_jax.settings import Config, setting
from pad_jax.training.step import train_step


@dataclass(frozen=True)
class ExpertsSettings:
    """Experts of PAD and of the methods that are PAD without something."""

    use: tuple[str, ...] = setting(
        ("id", "aligned", "text"), "experts of PAD's phase 3, in this order; Fig. 5b leaves some out", "P"
    )
    copy_encoder: bool = setting(True, "the aligned expert's encoder starts as the pre-trained one; False: fresh", "C")

    def check(self, config: Config) -> None:
        ordered = [expert for expert in ("id", "aligned", "text") if expert in self.use]
        if not ordered or list(self.use) != ordered:
            raise UserError(f"config.experts.use must be some of id, aligned, text, in this order: {self.use}")


@dataclass(frozen=True)
class AlignmentSettings:
    loss: str = setting("mmd", "of phase 2; InfoNCE is Fig. 5a", "P", choices=("mmd", "infonce"))
    anchored: bool = setting(True, "with the recommendation loss; False: Fig. 4", "P")
    freeze_ids: bool = setting(False, "E_al does not move in phase 2, Fig. 4", "P")


SECTIONS.register("experts", ExpertsSettings)
SECTIONS.register("alignment", AlignmentSettings)


def pretrain_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """Phase 1: the recommendation loss (Eq. 1)."""
    return {"rec": (1.0, fused_loss(scorer, config, params, batch, forward(scorer, config, params, batch, data, key)))}


def align_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """Phase 2: L = L_REC + gamma * L_MK-MMD over the aligned expert (Eq. 4-7).

    `alignment.loss=infonce` has InfoNCE from text to IDs in place of the MMD (Fig. 5a); without `alignment.anchored`
    there is no L_REC (Fig. 4).
    """
    seen = forward(scorer, config, params, batch, data, key)
    if config.alignment.loss == "mmd":
        parts = {"mmd": (config.mmd.weight, alignment(config, batch, seen))}
    elif config.alignment.loss == "infonce":
        parts = {"infonce": (config.infonce.weight, contrast(config, batch, seen, "text"))}
    if config.alignment.anchored:
        parts["rec"] = (1.0, fused_loss(scorer, config, params, batch, seen))
    return parts


def finetune_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """Phase 3: the recommendation loss of the fused logit (Eq. 8-11)."""
    return pretrain_loss(scorer, config, params, batch, data, key)


def alignment(config: Config, batch: Batch, seen: Forward) -> Mean:
    """L_MK-MMD (Eq. 5) between projected text rows and ID rows, a mean over groups of `mmd.group` users.

    The rows of a group are its window events and, with a loss that draws one for each, its negatives, an item as often
    as it occurs. A loss over the catalogue has no negatives: without `mmd.drawn` it aligns no unseen item. A group of
    users is the sample that the official code calls a batch on one GPU; it does not depend on the number of devices.

    Differs: empty slots take no part, unless `mmd.include_padding`, which fills each group with pairs of padding rows
    as the official code does (69 % of its rows on Prime Pantry).
    """
    parts = seen.items["aligned"].parts
    (ids, text), mask = by_group(batch, seen, parts, negatives=LOSSES[config.loss].needs == "negatives")
    if config.mmd.drawn:
        rows = drawn_items(batch, len(mask), config.mmd.drawn, seen.catalogue)
        ids, text = (jnp.concatenate([x, p[rows]], axis=1) for x, p in zip((ids, text), parts, strict=True))
        mask = jnp.concatenate([mask, jnp.ones_like(rows, bool)], axis=1)
    filled = mask.sum(axis=1) >= 2
    if config.mmd.include_padding:  # the last window event of a batch is always in the unused tail: item 0
        padding = seen.event_row[-1]  # torch's `padding_idx`: the pad ID row has no gradient
        parts = jax.lax.stop_gradient(parts[0]), parts[1]
        ids, text = (jnp.where(mask[..., None], x, p[padding]) for x, p in zip((ids, text), parts, strict=True))
        mask = jnp.ones_like(mask)
    distance = functools.partial(
        mk_mmd, kernel=config.mmd.kernel, scales=config.mmd.scales, estimator=config.mmd.estimator
    )
    return masked_mean(jax.vmap(distance)(text, ids, mask), filled)


def drawn_items(batch: Batch, groups: int, count: int, items: int) -> Int[Array, "G n"]:
    """`count` items of the catalogue for each group, the same ones on any number of devices."""
    first = batch.layout.first_row * groups // batch.user.shape[0]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(batch.sample_key, first + jnp.arange(groups))
    return jax.vmap(lambda key: jax.random.randint(key, (count,), 1, items + 1))(keys)


def contrast(config: Config, batch: Batch, seen: Forward, query: str) -> Mean:
    """InfoNCE between text rows and ID rows, from the side `query` ("text" or "id"), a mean over groups of users.

    Each item of a group's window events is one row. Differs: the official code also takes empty slots and repeated
    items, which are negatives of themselves then, and drawn negatives.
    """
    (ids, text, item), mask = by_group(batch, seen, (*seen.items["aligned"].parts, seen.ids))
    place = jnp.arange(item.shape[1])
    earlier = (item[:, :, None] == item[:, None, :]) & (place[:, None] > place[None])[None]
    mask &= ~earlier.any(axis=2)
    sides = {"text": (text, ids), "id": (ids, text)}[query]
    losses = jax.vmap(functools.partial(info_nce, temperature=config.infonce.temperature))(*sides, mask)
    return masked_mean(losses, mask.sum(axis=1) >= 2)


#: The training steps that the loop takes in each phase.
pretrain_step = functools.partial(train_step, pretrain_loss)
align_step = functools.partial(train_step, align_loss)
finetune_step = functools.partial(train_step, finetune_loss)


def untrained_in_alignment(config: Config) -> tuple[str, ...]:
    """What of the aligned expert an alignment loss alone does not reach: the encoder, and CAT where there is one."""
    return ("encoders/aligned", *(("towers/aligned/cat",) if config.model.fusion != "add" else ()))


def pad(config: Config) -> Method:
    """Pre-train the IDs, align a copy of them with the text, fine-tune three experts (Algorithm 1).

    The pre-trained expert waits untouched for phase 3, which adds the text expert and trains all three under one loss.
    The aligned expert's ID rows start as the pre-trained ones, its encoder too with `experts.copy_encoder`.
    `alignment` and `experts.use` hold the paper's ablations: an unanchored phase 2 (judged by its own loss), ID rows
    frozen in it, experts left out.
    """
    start = {"tables/aligned": "tables/id"}
    if config.experts.copy_encoder:
        start["encoders/aligned"] = "encoders/id"
    pretrained = ("tables/id", "encoders/id")
    kept = pretrained + (("tables/aligned",) if config.alignment.freeze_ids else ())
    if not config.alignment.anchored:
        kept += untrained_in_alignment(config)
    use = config.experts.use
    carried = {"id": pretrained, "aligned": ("tables/aligned", "encoders/aligned", "towers/aligned")}
    return Method(
        "pad",
        (
            Phase("pretrain", ("id",), pretrain_loss),
            Phase(
                "align",
                ("aligned",),
                align_loss,
                start=start | {path: path for path in pretrained},
                keep=kept,
                by_loss=not config.alignment.anchored,
                weighed=True,
            ),
            Phase(
                "finetune",
                use,
                finetune_loss,
                start={path: path for expert in use for path in carried.get(expert, ())},
            ),
        ),
    )


#: 1: in recipe `best` it was what `staged` is now.
METHODS.register("pad", pad, rules=2, older={1: pad})
