"""MAKE: a text and an ID expert trained on their own first, then joined (Sheng et al. 2024)."""

from dataclasses import replace

from jaxtyping import PRNGKeyArray

from pad_jax.batching.batch import Batch
from pad_jax.batching.device import DeviceData
from pad_jax.methods.base import Losses, Method, Phase, expert_loss, forward
from pad_jax.methods.pad import finetune_loss
from pad_jax.methods.registry import METHODS
from pad_jax.models.scorer import Params, Scorer
from pad_jax.settings import Config


def apart_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """Stage 1: L_REC of each expert's own logit; the two have nothing in common."""
    seen = forward(scorer, config, params, batch, data, key)
    return {expert: (1.0, expert_loss(scorer, config, batch, seen, expert)) for expert in scorer.experts}


def make(config: Config) -> Method:
    """Stage 1 is MoRec and beside it IDs alone; stage 2 trains both under one loss, the logit being g o_id + (1 - g)
    o_text with one learned g that starts at 1/2.

    The original is a click model; the paper takes from it the two experts and that the text is learned first. Differs:
    its IDs start from random values in stage 2; here they are pre-trained, as PAD's are. The validation score of stage
    1 is that of g = 1/2.
    """
    del config
    experts = ("id", "text")
    carried = ("tables/id", "encoders/id", "towers/text", "encoders/text")
    return Method(
        "make",
        (
            Phase("pretrain", experts, apart_loss, gate="scalar", keep=("gate",)),
            Phase("finetune", experts, finetune_loss, start={path: path for path in carried}, gate="scalar"),
        ),
    )


def text_first(config: Config) -> Method:
    """MAKE under rules 1 and 2: the ID expert joins in stage 2, fresh."""
    first, last = make(config).phases
    return Method("make", (replace(first, experts=("text",), gate="", keep=()), last))


#: 1: epochs of align and finetune.
METHODS.register("make", make, rules=3, older={1: text_first, 2: text_first})
