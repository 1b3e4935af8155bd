"""LLMEmb, stage 2 (RAT): frozen text behind a linear adapter that is drawn to trained IDs (Liu et al., AAAI 2025)."""

import functools
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from pad_jax.batching.batch import Batch
from pad_jax.batching.device import DeviceData
from pad_jax.losses.contrastive import soft_contrast
from pad_jax.losses.mean import Mean, masked_mean
from pad_jax.methods.base import Forward, Losses, Method, Phase, by_group, forward, fused_loss
from pad_jax.methods.pad import pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.models.experts import EXPERTS, Expert
from pad_jax.models.scorer import Params, Scorer
from pad_jax.models.settings import products_in
from pad_jax.models.towers import ItemVectors, Linear2, Tower
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class LLMEmbSettings:
    weight: float = setting(0.01, "alpha, weight of the alignment with the IDs", "the LLMEmb paper", least=0)
    temperature: float = setting(2.0, "tau of the alignment", "the code of LLMEmb", above=0)


class AdapterTower(Tower):
    """a(T), see `Linear2`, whatever `model.text_tower` says."""

    @nn.compact
    def __call__(self, text, rows, uid, train: bool, product=None) -> ItemVectors:
        adapter = Linear2(self.config.model.width, products_in(self.config), name="adapter")
        return ItemVectors(adapter(text).astype(jnp.float32))


class AdapterExpert(Expert):
    """a(T[i])."""

    key, slope, reads_text, knows_new = 9, 1.0, True, True

    def check_text(self, config: Config, width: int) -> None:
        pass

    def tower(self, config: Config) -> nn.Module:
        return AdapterTower(config)


def rat_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """L_REC of the adapted text + llmemb.weight * alignment."""
    seen = forward(scorer, config, params, batch, data, key)
    return {
        "rec": (1.0, fused_loss(scorer, config, params, batch, seen)),
        "alignment": (config.llmemb.weight, alignment(config, params, batch, seen)),
    }


def alignment(config: Config, params: Params, batch: Batch, seen: Forward) -> Mean:
    """`soft_contrast` of trained ID rows and adapted text, a mean over groups of `mmd.group` users.

    The rows of a group are its window events, an item as often as it occurs. Differs: the official code takes the
    targets of the whole batch as one group, which would depend on the number of devices.
    """
    (ids, text), mask = by_group(batch, seen, (params["tables"]["id"][seen.ids], seen.items["adapter"].vector))
    losses = jax.vmap(functools.partial(soft_contrast, temperature=config.llmemb.temperature))(ids, text, mask)
    return masked_mean(losses, mask.sum(axis=1) >= 2)


def llmemb(config: Config) -> Method:
    """Phase 1 trains the IDs, of which phase 2 keeps the table, and nothing else, to align with; it is no part of the
    score. Stage 1 of the paper (SCFT) tunes the language model that makes the text table.

    Differs: the official code leaves out the causal mask, so that positions read their targets, and gives the last item
    a vector of zeros; neither is so here. The loss is `config.loss` (official: bce, one negative).
    """
    del config
    ids = "tables/id"
    return Method(
        "llmemb",
        (
            Phase("pretrain", ("id",), pretrain_loss),
            Phase("finetune", ("adapter",), rat_loss, start={ids: ids}, keep=(ids,), rate="pretrain"),
        ),
    )


EXPERTS.register("adapter", AdapterExpert())
METHODS.register("llmemb", llmemb, settings=LLMEmbSettings)
