"""SASRec, and any backbone, on item IDs alone: what every gain is measured from (paper, Table 2)."""

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.settings import Config


def sasrec(config: Config) -> Method:
    """Phase 1 of PAD."""
    del config
    return Method("sasrec", (Phase("pretrain", ("id",), pretrain_loss),))


METHODS.register("sasrec", sasrec, rules=2, older={1: sasrec})  # 1: epochs of all phases
