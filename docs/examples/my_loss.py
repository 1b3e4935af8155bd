"""A recommendation loss: BPR, -log sigmoid(positive - negative), mean over valid positions."""

import jax

from pad_jax.config import config_dict
from pad_jax.losses.mean import masked_mean
from pad_jax.losses.recommendation import LOSSES, Loss


def bpr(logits, config):
    return masked_mean(jax.nn.softplus(logits.negative() - logits.positive()), logits.valid)


LOSSES.register("bpr", Loss(bpr, needs="negatives"))


def get_config(job: str = "all"):
    return config_dict("demo", job, recipe="best", method="sasrec", loss="bpr")
