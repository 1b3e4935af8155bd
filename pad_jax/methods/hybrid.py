"""Hybrid encoding: IDs and text joined in one item vector (paper, Table 2, after CoLLM and LLaRA)."""

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.settings import Config


def hybrid(config: Config) -> Method:
    """Item vectors are CAT(E, f(T)) of `model.fusion`, trained at once from random values.

    The paper does not say where E starts.
    """
    del config
    return Method("hybrid", (Phase("pretrain", ("aligned",), pretrain_loss),))


METHODS.register("hybrid", hybrid, rules=2, older={1: hybrid})  # 1: epochs of all phases
