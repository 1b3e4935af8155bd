"""Blend: what is learned, what is counted and what the words say, summed by weights that unseen events choose."""

from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pad_jax.batching.batch import Batch
from pad_jax.batching.device import DeviceData
from pad_jax.blocks import map_blocks, rows_that_fit
from pad_jax.losses.mean import masked_mean
from pad_jax.methods.base import Losses, Method, Phase
from pad_jax.methods.letitgo import DeltaExpert
from pad_jax.methods.pad import pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.models.experts import EXPERTS
from pad_jax.models.gate import GATES
from pad_jax.models.scorer import Params, Scorer, vectors_of
from pad_jax.settings import Config, setting

#: The shares of learned, followers and words, and what multiplies their sum in the loss: where both start. It is the
#: learned expert that is trusted until many users say otherwise: few are too noisy to find the way back to it.
STARTS, SHARPNESS = (0.6, 0.16, 0.24), 10.0
#: Training events of a newest item for which the shares are what they are.
TYPICAL = 20.0
#: The least steps of an epoch: with those of few users, patience would end the phase before its shares have arrived.
STEPS = 100


@dataclass(frozen=True)
class BlendSettings:
    bound: float = setting(1.0, "longest correction of an item's text vector, which has length 1", "V", least=0)
    shrink: float = setting(10.0, "k: an item met c times in training has c / (c + k) of its correction", "V", least=0)
    dropout: float = setting(0.5, "of the encoder", "V", least=0, below=1)
    followers: int = setting(64, "items that most often followed an item", "O", unit="items", least=1, below=2**16)
    words: int = setting(512, "directions of the words of all titles", "V", least=1, below=2**16)
    whitening: float = setting(0.0, "their deviations are divided by themselves to this power", "V", least=0)
    gate_rate: float = setting(5.0, "times learning_rate for the weights", "O", least=0)
    rare: float = setting(0.1, "1 + this / (1 + training count) times the score of an item", "V", least=0)
    new: float = setting(1.3, "times the score of an item that is added to a trained model", "V", above=0)


class LearnedExpert(DeltaExpert):
    """T[i] / |T[i]| + c / (c + k) delta[i]; a user is the profile of these plus what the encoder makes of them."""

    key = 11

    def bound(self, config: Config) -> float:
        return config.blend.bound

    def met(self, config: Config, counts: Any) -> Any:
        count = counts.astype(np.float32)
        return count / np.maximum(count + config.blend.shrink, 1e-6)

    def encoder(self, config: Config) -> nn.Module:
        model = replace(config.model, dropout=config.blend.dropout, user="profile")
        return super().encoder(replace(config, model=model))  # type: ignore[call-arg]


class BlendGate(nn.Module):
    """Shares of the experts, and how they change with what training met; `sharpness` is the loss's own.

    A user whose newest item training met c times has share_k * ((1 + c) / (1 + `TYPICAL`))^slope_k, with slopes that
    start at 0. An item that it met c times has 1 + rare / (1 + c) times its score: that nothing has followed it is
    little evidence. One that is added to a trained model has `new` times its score in place of that, where it is none.
    """

    new: float = 1.0
    rare: float = 0.0

    @nn.compact
    def __call__(self, vectors: tuple, bucket: Int[Array, " R"]) -> Float[Array, "R K"]:
        if self.is_initializing():
            self.param("sharpness", lambda _: jnp.log(jnp.float32(SHARPNESS)))
            self.param("slopes", nn.initializers.zeros, (len(STARTS),))
        shares = jax.nn.softmax(self.param("shares", lambda _: jnp.log(jnp.asarray(STARTS, jnp.float32))))
        return jnp.broadcast_to(shares, (len(bucket), len(STARTS)))

    def of_users(self, counts: Int[Array, " T"]) -> Float[Array, "T K"]:
        slopes: Any = self.get_variable("params", "slopes")
        return jnp.exp(jnp.log((1 + counts) / (1 + TYPICAL))[:, None] * slopes[None])

    def of_items(self, counts: Int[Array, " R"]) -> Float[Array, " R"]:
        return 1 + self.rare / (1 + counts)


def blend_loss(
    scorer: Scorer, config: Config, params: Params, batch: Batch, data: DeviceData, key: PRNGKeyArray | None
) -> Losses:
    """1 - nDCG of the last event of each window, with a rank that can be differentiated, by the shares alone.

    The rank is 1 + the sum over all items j that are not in the window of sigmoid(s_j - s_target): a likelihood would
    look at the whole catalogue, and pay for what is popular wherever it stands. Differs from the rank that is judged,
    which leaves out what was met before the window, too; docs/blend.md has what that changes.
    """
    rows = len(data.bucket)
    params = {**jax.lax.stop_gradient(params), "gate": params["gate"]}
    items = scorer.item_vectors(params, jnp.arange(rows), data)
    history = jax.tree.map(lambda x: batch.inputs_of(x[batch.event_item]), vectors_of(items))
    met = batch.inputs_of(jnp.asarray(data.counts)[batch.event_item])
    users = scorer.users(params, history, batch.layout, met)
    users = jax.tree.map(batch.layout.last, users)
    gated = scorer.gated(params, items, jnp.asarray(data.bucket), jnp.asarray(data.counts))
    target = batch.layout.last(batch.targets)
    seen = batch.layout.grid.to_grid(batch.inputs_of(batch.event_item))
    sharpness = jnp.exp(params["gate"]["sharpness"])

    @jax.checkpoint
    def gain(part):
        user, target, seen = part
        scores = sharpness * scorer.scores(user, gated, rows)
        own = jnp.take_along_axis(scores, target[:, None], axis=1)
        user = jnp.arange(len(seen))[:, None]
        others = scores.at[user, seen].set(-jnp.inf).at[:, 0].set(-jnp.inf)
        return 1 / jnp.log2(1.5 + jax.nn.sigmoid(others - own).sum(axis=1))  # the target itself adds 1/2

    gains = map_blocks(gain, (users, target, seen), rows_that_fit(rows))
    known = (target > 0) & (seen != target[:, None]).all(axis=1)
    return {"ndcg": (1.0, masked_mean(1 - gains, known))}


def blend(config: Config) -> Method:
    """A learned expert, trained alone; then the shares of it, of counts and of words.

    No expert moves in the second phase, which learns seven numbers from the events of the validation split: the first
    has not seen them, and an expert that knows its training events by heart would be trusted for it.
    """
    carried = ("tables/learned", "encoders/learned")
    return Method(
        "blend",
        (
            Phase("pretrain", ("learned",), pretrain_loss),
            Phase(
                "finetune",
                ("learned", "followers", "words"),
                blend_loss,
                start={path: path for path in carried},
                keep=carried,
                gate="blend",
                gate_rate=config.blend.gate_rate,
                steps=STEPS,
                held_out=True,
            ),
        ),
    )


EXPERTS.register("learned", LearnedExpert())
GATES.register("blend", lambda config, experts: BlendGate(config.blend.new, config.blend.rare))
#: 1: counts were those of the latest item alone. 2: shares were the same for every user. 3: no `rare`. 4: shares began
#: far from the learned expert, and epochs had no least number of steps.
METHODS.register("blend", blend, settings=BlendSettings, rules=5, older={4: blend})
