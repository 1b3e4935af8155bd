"""CTRL: contrast IDs with texts first, then recommend by IDs alone (Li et al. 2023)."""

from jaxtyping import PRNGKeyArray

from pad_jax.batching.batch import Batch
from pad_jax.batching.device import DeviceData
from pad_jax.methods.base import Losses, Method, Phase, forward
from pad_jax.methods.pad import contrast, pretrain_loss, untrained_in_alignment
from pad_jax.methods.registry import METHODS
from pad_jax.models.scorer import Params, Scorer
from pad_jax.settings import Config


def contrast_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """Stage 1: InfoNCE between ID rows and projected text rows, half from each side."""
    seen = forward(scorer, config, params, batch, data, key)
    return {side: (0.5, contrast(config, batch, seen, side)) for side in ("text", "id")}


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
            Phase("align", ("aligned",), contrast_loss, keep=untrained_in_alignment(config), by_loss=True),
            Phase(
                "finetune",
                ("id",),
                pretrain_loss,
                start={"tables/id": "tables/aligned"},
                rate="pretrain",
            ),
        ),
    )


METHODS.register("ctrl", ctrl, rules=2, older={1: ctrl})  # 1: epochs of pretrain and finetune
