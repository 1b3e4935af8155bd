"""Chunks and CLUB, after DisCo (Du et al. 2024): parts of an item that IDs and text share, and parts of one alone."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from pad_jax.batching.batch import Batch
from pad_jax.batching.device import DeviceData
from pad_jax.losses.contrastive import club, gaussian_nll
from pad_jax.losses.mean import Mean, masked_mean
from pad_jax.losses.recommendation import LOSSES, binary_cross_entropy
from pad_jax.methods.base import Forward, Losses, Method, Phase, by_group, forward, fused_loss
from pad_jax.methods.registry import METHODS
from pad_jax.models.critics import Bilinear, Gaussian
from pad_jax.models.scorer import Params, Scorer
from pad_jax.models.towers import apply
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class DiscoSettings:
    club: float = setting(0.2, "alpha, weight of CLUB", "the DisCo paper", least=0)
    sufficiency: float = setting(0.2, "beta, weight of L_SUFF", "the DisCo paper", least=0)


#: Parts (z1 to z4 of `DiscoTower`, from 0) that CLUB keeps apart: alone with alone, common with common.
COUPLES = ((0, 3), (1, 2))


def critics(config: Config, key: PRNGKeyArray) -> Params:
    """Parameters of q for each couple, and of a discriminator for each part."""
    x = jnp.zeros((1, config.model.width))
    keys = jax.random.split(key, 6)
    gaussians = {f"gaussian_{n}": Gaussian().init(keys[n], x)["params"] for n in range(2)}
    return gaussians | {f"bilinear_{n}": Bilinear().init(keys[2 + n], x, x)["params"] for n in range(4)}


def disco_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """L_REC + disco.club * CLUB + disco.sufficiency * L_SUFF; `critic` fits CLUB's q and moves nothing else."""
    seen = forward(scorer, config, params, batch, data, key)
    information, likelihood = disentanglement(batch, params["critics"], seen)
    return {
        "rec": (1.0, fused_loss(scorer, config, params, batch, seen)),
        "club": (config.disco.club, information),
        "sufficiency": (config.disco.sufficiency, sufficiency(config, batch, params["critics"], seen)),
        "critic": (1.0, likelihood),
    }


def disentanglement(batch: Batch, critics: Params, seen: Forward) -> tuple[Mean, Mean]:
    """CLUB of the couples, and -log q, over the events of each `mmd.group` users: sums over couples, means over groups.

    The first does not move q, the second does not move the parts. Differs: the original couples attention patterns of
    click models and updates q by an optimizer of its own after every step; here both share the step.
    """
    parts, mask = by_group(batch, seen, seen.items["disco"].parts)
    filled = mask.sum(axis=1) >= 2
    stop = jax.lax.stop_gradient
    information = likelihood = jnp.zeros(len(mask))
    for number, (x, y) in enumerate(COUPLES):
        q = critics[f"gaussian_{number}"]
        mean, log_variance = apply(Gaussian(), stop(q), parts[x])
        information += jax.vmap(club)(mean, log_variance, parts[y], mask)
        mean, log_variance = apply(Gaussian(), q, stop(parts[x]))
        likelihood += jax.vmap(gaussian_nll)(mean, log_variance, stop(parts[y]), mask)
    return masked_mean(information, filled), masked_mean(likelihood, filled)


def sufficiency(config: Config, batch: Batch, critics: Params, seen: Forward) -> Mean:
    """L_SUFF: a discriminator per part tells the next item of a user state from a drawn one; mean over parts."""
    drawn = {
        "catalogue": lambda: batch.negatives,
        "negatives": lambda: seen.drawn_row,
        "samples": lambda: seen.drawn_row[batch.layout.uid % len(seen.drawn_row)],
    }[LOSSES[config.loss].needs]()
    losses = []
    for number, part in enumerate(seen.items["disco"].parts):
        positive, negative = batch.targets_of(seen.events_of(part)), part[drawn]
        positive, negative = (
            apply(Bilinear(), critics[f"bilinear_{number}"], seen.users["disco"], z) for z in (positive, negative)
        )
        losses.append(binary_cross_entropy(positive, negative, batch.valid))
    return Mean(jnp.stack([loss.total for loss in losses]).mean(), losses[0].entries)


def disco(config: Config) -> Method:
    """One encoder over item vectors fused from four parts (`DiscoTower`), with L_SUFF and CLUB on the parts.

    The paper says that it takes DisCo's chunks and its two losses, the released code shows the parts at evaluation;
    which couples CLUB sees is not said, and chosen here by what the original calls inner and inter. The original's
    dual-side attention is between features of click models and left out, hence the label "chunks + CLUB" of tables.
    """
    del config
    return Method("disco", (Phase("pretrain", ("disco",), disco_loss, critics=critics),))


METHODS.register("disco", disco, settings=DiscoSettings, rules=2, older={1: disco})  # 1: epochs of all phases
