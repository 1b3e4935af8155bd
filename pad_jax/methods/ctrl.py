"""CTRL: contrast IDs with texts first, then recommend by IDs alone (Li et al. 2023)."""

import functools

from jaxtyping import PRNGKeyArray

from pad_jax.config import Config
from pad_jax.data.batches import Batch, DeviceData
from pad_jax.methods.base import Losses, Method, Phase, forward
from pad_jax.methods.pad import contrast, pretrain_step, untrained_in_alignment
from pad_jax.models.scorer import Params, Scorer
from pad_jax.training.step import train_step


def contrast_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """Stage 1: InfoNCE between ID rows and projected text rows, half from each side."""
    seen = forward(scorer, config, params, batch, data, key)
    return {side: (0.5, contrast(config, batch, seen, side)) for side in ("text", "id")}


contrast_step = functools.partial(train_step, contrast_loss)


def ctrl(config: Config) -> Method:
    """Stage 1 (`align`) learns E and f, no recommender; stage 2 (`finetune`) is a recommender from E on.

    Stage 1 contrasts the distinct items of every `mmd.group` users, so a popular item is met more often and one that
    training never meets not at all.

    The original aligns a click model's vector of an instance with a language model's; here an item's ID row and its
    projected text stand for them, as the paper compares sequential recommenders. Stage 1 trains no recommender, so its
    epochs are judged by its own loss, and its ranks are those of an encoder that has learned nothing.
    """
    return Method(
        "ctrl",
        (
            Phase("align", ("aligned",), contrast_step, keep=untrained_in_alignment(config), by_loss=True),
            Phase(
                "finetune",
                ("id",),
                pretrain_step,
                start={"tables/id": "tables/aligned"},
                budget=("pretrain", "finetune"),
                rate="pretrain",
            ),
        ),
    )
