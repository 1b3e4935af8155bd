"""Experts trained one after the other, each with a loss of its own: what `pad` was under recipe `best` before 0.7."""

from dataclasses import dataclass

import flax.linen as nn
import jax
from jaxtyping import PRNGKeyArray

from pad_jax.batching.batch import Batch
from pad_jax.batching.device import DeviceData
from pad_jax.errors import UserError
from pad_jax.methods.base import Losses, Method, Phase, expert_loss, forward, fused_loss
from pad_jax.methods.pad import align_loss, pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.models.gate import GATES, FrequencyGate
from pad_jax.models.scorer import Params, Scorer
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class StagedSettings:
    id_scale: float = setting(0.1, "the aligned ID rows start as the pre-trained ones times this", "V", least=0)
    gate_start: tuple[float, ...] = setting((-2.0, 1.0, 0.0), "logits of ID, aligned and text at bucket 0", "V")
    gate_rate: float = setting(0.03, "times learning_rate for the gate", "V", least=0)

    def check(self, config: Config) -> None:
        if len(self.gate_start) != 3:
            raise UserError(f"config.staged.gate_start must have 3 numbers (ID, aligned, text), not {self.gate_start}")


def staged_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """L_REC of the text expert's own logit, and that of the fused logit, which trains the gate alone.

    An expert that has learned the training events by heart leaves nothing to learn for the others under a common loss,
    and they are needed where it has seen too little.
    """
    seen = forward(scorer, config, params, batch, data, key)
    users, items = jax.lax.stop_gradient((seen.users, seen.items))
    gate = fused_loss(scorer, config, params, batch, seen._replace(users=users, items=items))
    return {"gate": (1.0, gate), "text": (1.0, expert_loss(scorer, config, batch, seen, "text"))}


def staged(config: Config) -> Method:
    """PAD's phases, with nothing trained twice: phase 3 trains the text expert and the gate alone.

    The aligned expert has a fresh encoder and starts near the text: its ID rows begin at a tenth of their length.
    """
    pretrained = ("tables/id", "encoders/id")
    aligned = ("tables/aligned", "encoders/aligned", "towers/aligned")
    carried = {path: path for path in (*pretrained, *aligned)}
    return Method(
        "staged",
        (
            Phase("pretrain", ("id",), pretrain_loss),
            Phase(
                "align",
                ("aligned",),
                align_loss,
                start={"tables/aligned": "tables/id"} | {path: path for path in pretrained},
                scale={"tables/aligned": config.staged.id_scale},
                keep=pretrained,
                weighed=True,
            ),
            Phase(
                "finetune",
                ("id", "aligned", "text"),
                staged_loss,
                start=carried,
                keep=tuple(carried),
                gate="staged",
                gate_rate=config.staged.gate_rate,
            ),
        ),
    )


METHODS.register("staged", staged, settings=StagedSettings)


@GATES.register("staged")
def staged_gate(config: Config, experts: tuple[str, ...]) -> nn.Module:
    """A number for each bucket, from `staged.gate_start` on."""
    return FrequencyGate(tuple(zip(experts, config.staged.gate_start, strict=True)), config.data.buckets)
