"""LLM-ESR: two views of every item under one encoder, and states that learn from those of similar users (Liu et al.
2024, NeurIPS; arXiv 2405.20646)."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pad_jax import parallel
from pad_jax.batching.batch import Batch
from pad_jax.batching.device import DeviceData
from pad_jax.errors import UserError
from pad_jax.evaluation.ranking import states
from pad_jax.losses.mean import Mean, masked_mean
from pad_jax.methods.base import Losses, Method, Phase, forward, fused_loss
from pad_jax.methods.fills import text_start
from pad_jax.methods.registry import METHODS
from pad_jax.models.dual import HEADS
from pad_jax.models.scorer import Params, Scorer
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class LlmEsrSettings:
    weight: float = setting(0.1, "alpha, weight of the distillation; 0: without", "the LLM-ESR code", least=0)
    neighbours: int = setting(
        10, "K, similar users whose mean state is the teacher", "the LLM-ESR code", unit="users", least=1, below=10_001
    )
    profile: str = setting(
        "mean",
        "what makes users similar: the mean of their items' text vectors, or the vector of their titles as one text",
        "the LLM-ESR paper has a text",
        choices=("mean", "text"),
    )
    cross_attention: bool = setting(
        True, "the views query each other before the encoder; False: an ablation of the LLM-ESR paper"
    )

    def check(self, config: Config) -> None:
        width, heads = config.model.width, config.sasrec.heads
        if config.method == "llmesr" and width % (2 * HEADS):
            raise UserError(f"config.model.width={width} does not divide by {2 * HEADS}: two views with {HEADS} heads")
        if config.method == "llmesr" and config.backbone == "sasrec" and width % (2 * heads):
            raise UserError(
                f"config.model.width={width} does not divide into two views with config.sasrec.heads={heads}"
            )


def llmesr_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """L_REC + alpha * MSE(u, mean of the teachers' states), u the newest state of each row.

    Differs: the released code encodes the student a second time, with other draws of dropout.
    """
    seen = forward(scorer, config, params, batch, data, key)
    parts = {"rec": (1.0, fused_loss(scorer, config, params, batch, seen))}
    if config.llmesr.weight:
        student = unscaled(config, params, batch.layout.last(seen.users["dual"]))
        own = data.arrays["dual"]
        similar = jnp.take(jnp.asarray(own["similar"]), batch.user, axis=0, mode="clip")
        parts["distil"] = (config.llmesr.weight, distillation(student, own["teacher"], similar, batch.user >= 0))
    return parts


def distillation(
    student: Float[Array, "B D"],
    teacher: Float[Array, "R D"],
    similar: Int[Array, "B K"],
    there: Bool[Array, " B"],
) -> Mean:
    """mean (student - mean_k teacher[similar_k])^2, over the users that are there and D; the teacher is a constant."""
    goal = jax.lax.stop_gradient(jnp.asarray(teacher))[similar].mean(axis=1)
    return masked_mean(jnp.square(student - goal).mean(axis=1), there)


def unscaled(config: Config, params: Params, users: Float[Array, "R D"]) -> Float[Array, "R D"]:
    """User vectors before `model.logit_scale`, which would otherwise multiply the MSE, in recipe `best` by 148."""
    if config.model.logit_scale == "learned":
        return users * jnp.exp(-params["encoders"]["dual"]["log_scale"])
    return users * jnp.sqrt(config.model.width) if config.model.logit_scale == "sqrt" else users


@functools.lru_cache(maxsize=1)
def _states(scorer: Scorer, batch: int) -> Callable[..., Any]:
    return states(scorer, batch)  # compiled once for all epochs


def refresh(scorer: Scorer, config: Config, params: Params, data: DeviceData) -> DeviceData:
    """The teacher of an epoch: the states after the rows' inputs under these parameters, without dropout.

    It is recomputed from the parameters of the checkpoint where training goes on, so it is the same then.

    Differs: the released code encodes the teachers of a batch with it, under dropout, at eleven times the cost.
    """
    inputs = parallel.on_host(data.windows)[:, :-1]
    users = _states(scorer, config.eval.batch)(params, data, inputs)["dual"]
    one = parallel.first_replica({"encoders": params["encoders"]})
    teacher = np.asarray(unscaled(config, one, jnp.asarray(users)))
    own = data.arrays["dual"] | {"teacher": parallel.replicate(teacher)}
    return data._replace(arrays=data.arrays | {"dual": own})


def llmesr(config: Config) -> Method:
    """One phase: the dual expert, whose ID half starts as the text's principal directions.

    Differs: the released code leaves these at the length that they have, see `text_start`; and with
    `llmesr.profile=mean` similar users are not found by a text about each, as the paper's are, but by the mean of their
    items' vectors, which needs no encoder.
    """
    each_epoch = refresh if config.llmesr.weight else None
    return Method(
        "llmesr",
        (Phase("pretrain", ("dual",), llmesr_loss, fill={"tables/dual": text_start}, each_epoch=each_epoch),),
    )


METHODS.register("llmesr", llmesr, settings=LlmEsrSettings)
