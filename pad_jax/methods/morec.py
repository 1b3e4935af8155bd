"""MoRec: a recommender on item texts alone (Yuan et al. 2023)."""

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.settings import Config


def morec(config: Config) -> Method:
    """Item vectors are f(T): there is no ID table.

    Differs: the original trains the text encoder too; PAD compares with a frozen one, as here.
    """
    del config
    return Method("morec", (Phase("pretrain", ("text",), pretrain_loss),))


METHODS.register("morec", morec, rules=2, older={1: morec})  # 1: epochs of all phases
