"""A method: the ID and the text expert trained together, each with a loss of its own beside that of their sum."""

from pad_jax.config import config_dict
from pad_jax.methods import METHODS
from pad_jax.methods.base import Method, Phase, expert_loss, forward, fused_loss


def loss(scorer, config, params, batch, data, key):
    seen = forward(scorer, config, params, batch, data, key)
    fused = fused_loss(scorer, config, params, batch, seen)
    return {"fused": (1.0, fused), "text": (0.5, expert_loss(scorer, config, batch, seen, "text"))}


METHODS.register("duet", lambda config: Method("duet", (Phase("pretrain", ("id", "text"), loss),)))


def get_config(job: str = "all"):
    return config_dict("demo", job, recipe="best", method="duet")
