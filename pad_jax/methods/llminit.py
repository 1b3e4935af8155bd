"""LLMInit: a recommender on item IDs whose rows start as the items' texts (after Harte et al. 2023)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pad_jax.batching.device import DeviceData
from pad_jax.methods.base import Method, Phase
from pad_jax.methods.fills import text_start
from pad_jax.methods.pad import pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class LLMInitSettings:
    scale: float = setting(1.0, "mean length of the rows at the start, times that of fresh ID rows", "O", above=0)


def scaled_start(config: Config, data: DeviceData, shape: tuple[int, ...]) -> Float[np.ndarray, "I D"]:
    """`text_start` times `llminit.scale`. Differs: the papers say nothing of lengths."""
    return np.float32(config.llminit.scale) * text_start(config, data, shape)


def llminit(config: Config) -> Method:
    """SASRec from `text_start` on. The text is read once and is no part of the model.

    So the model knows item IDs alone and cannot score items that are not in its table. An item of the table that
    training never meets has the text's row, moved by what a loss does to negatives.

    P2Rec (Liu et al. 2024), first called TSLRec, is this method with a text table from a language model that was tuned
    on users' preferences: `text.table` says which.
    """
    del config
    return Method("llminit", (Phase("pretrain", ("id",), pretrain_loss, fill={"tables/id": scaled_start}, text=True),))


METHODS.register("llminit", llminit, settings=LLMInitSettings)
