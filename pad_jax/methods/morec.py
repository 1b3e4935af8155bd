"""MoRec: a recommender on item texts alone (Yuan et al. 2023)."""

from pad_jax.config import Config
from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import pretrain_step


def morec(config: Config) -> Method:
    """Item vectors are f(T): there is no ID table.

    Differs: the original trains the text encoder too; PAD compares with a frozen one, as here.
    """
    del config
    return Method("morec", (Phase("pretrain", ("text",), pretrain_step, budget=("pretrain", "align", "finetune")),))
