"""MAKE: a text expert trained on its own first, then joined with an ID expert (Sheng et al. 2024)."""

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import finetuning, pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.settings import Config


def make(config: Config) -> Method:
    """Stage 1 is MoRec; stage 2 adds an ID expert, the logit being g o_id + (1 - g) o_text with one learned g.

    The original is a click model; the paper takes from it the two experts and their order. The ID expert starts from
    random values, g from 1/2. Everything is trained in stage 2 under one loss, unless `experts` freezes what stage 1
    has trained and gives the new expert its own loss, as it does for PAD.
    """
    carried = ("towers/text", "encoders/text")
    return Method(
        "make",
        (
            Phase("pretrain", ("text",), pretrain_loss),
            Phase(
                "finetune",
                ("id", "text"),
                finetuning(("id",)),
                start={path: path for path in carried},
                keep=carried if config.experts.freeze_carried else (),
                gate="scalar",
            ),
        ),
    )


METHODS.register("make", make, rules=2, older={1: make})  # 1: epochs of align and finetune
