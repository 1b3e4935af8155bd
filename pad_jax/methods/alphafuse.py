"""AlphaFuse: ID vectors in the directions in which the items' texts say least (Hu et al., SIGIR 2025)."""

import flax.linen as nn
import jax.numpy as jnp

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.fills import text_mean, whitened_directions
from pad_jax.methods.pad import pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.models.experts import EXPERTS, CorrectedExpert
from pad_jax.models.towers import ItemVectors, Tower, Whitening, unit
from pad_jax.settings import Config


class AlphaFuseTower(Tower):
    """White(T) + [0 ; E] at length 1: the D leading principal directions of the text, each with variance 1, the
    strongest first, and IDs in the last of them."""

    @nn.compact
    def __call__(self, text, rows, uid, train: bool, product=None) -> ItemVectors:
        white = Whitening(self.config.model.width, name="whitening")(text)
        weak = jnp.pad(rows, ((0, 0), (white.shape[1] - rows.shape[1], 0)))
        return ItemVectors(unit(white + weak))


class AlphaFuseExpert(CorrectedExpert):
    """IDs of width D/2, from zero on."""

    key, columns = 8, 0.5

    def tower(self, config: Config) -> nn.Module:
        return AlphaFuseTower(config)


def alphafuse(config: Config) -> Method:
    """One phase; whitening is fitted to all items' text and kept, IDs and encoder are trained, and there is no adapter.

    Length 1 since the original trains on cosines. Directions beyond the text's rank are empty, and IDs learn there with
    `model.user=state` alone: with `residual`, no gradient but zero reaches a direction that is empty for all items.

    Differs: the loss is `config.loss`; the original has InfoNCE over cosines, temperature 0.07, 64 drawn negatives. IDs
    start at zero, where its released code draws them unless told otherwise, and those of items that training never
    meets stay there.
    """
    del config
    tower = "towers/alphafuse/whitening"
    fill = {f"{tower}/mean": text_mean, f"{tower}/matrix": whitened_directions}
    return Method("alphafuse", (Phase("pretrain", ("alphafuse",), pretrain_loss, fill=fill, keep=(tower,)),))


EXPERTS.register("alphafuse", AlphaFuseExpert())
METHODS.register("alphafuse", alphafuse)
