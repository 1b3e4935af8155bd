"""SMEM: shared and modality-specific embeddings, PAD without its alignment (paper, Table 2 and Fig. 4, after STEM)."""

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import aligned_start, finetuning, pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.settings import Config


def smem(config: Config) -> Method:
    """PAD without phase 2: its aligned expert goes into phase 3 as it would have gone into phase 2.

    The paper does not say whether the frequency gate stays; it does here. What PAD has more is phase 2 as a whole,
    which also trains the aligned expert by itself; with `method=pad` and `mmd.weight=0` the MMD alone is left out.
    """
    pretrained = ("tables/id", "encoders/id")
    start, scale = aligned_start(config)
    return Method(
        "smem",
        (
            Phase("pretrain", ("id",), pretrain_loss),
            Phase(
                "finetune",
                ("id", "aligned", "text"),
                finetuning(("aligned", "text")),
                start=start | {path: path for path in pretrained},
                scale=scale,
                keep=pretrained if config.experts.freeze_carried else (),
            ),
        ),
    )


METHODS.register("smem", smem, rules=2, older={1: smem})  # 1: epochs of align and finetune
