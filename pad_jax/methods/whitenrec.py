"""WhitenRec and WhitenRec+: a recommender on whitened texts alone (Zhang et al. 2024, arXiv 2402.10602)."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from pad_jax.errors import UserError
from pad_jax.methods.base import Method, Phase
from pad_jax.methods.fills import text_mean, whitened, whitened_in_groups
from pad_jax.methods.pad import pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.models.dropout import dropout
from pad_jax.models.experts import EXPERTS, Expert
from pad_jax.models.settings import products_in
from pad_jax.models.towers import ItemVectors, Tower, Whitening, unit, xavier_normal
from pad_jax.settings import Config, setting
from pad_jax.training.phase import Fill


@dataclass(frozen=True)
class WhitenRecSettings:
    groups: int = setting(
        1,
        "1: WhitenRec; more: WhitenRec+, with a second view whitened within so many groups of dimensions",
        "the WhitenRec paper tries 4 to 32",
        least=1,
        below=2**16,
    )


class WhitenRecTower(Tower):
    """f(White(T)), or the sum of f over both views, at length 1. f is Linear(Dropout(GELU(Linear E->D))) and the same
    for both, since ZCA leaves the dimensions what they were."""

    @nn.compact
    def __call__(self, text, rows, uid, train: bool, product=None) -> ItemVectors:
        model, dtype = self.config.model, products_in(self.config)
        hidden, last = (
            nn.Dense(model.width, dtype=dtype, kernel_init=xavier_normal, name=n) for n in ("hidden", "last")
        )
        total = jnp.zeros((len(text), model.width))
        for view in views(self.config):
            x = nn.gelu(hidden(Whitening(text.shape[1], name=view)(text)), approximate=False)
            if train:
                x = dropout(x, model.dropout, self.make_rng("dropout"), uid)
            total += last(x).astype(jnp.float32)
        return ItemVectors(unit(total))


def views(config: Config) -> tuple[str, ...]:
    """Of the text."""
    return ("full", "relaxed") if config.whitenrec.groups > 1 else ("full",)


class WhitenRecExpert(Expert):
    """Whitened text through a projection; there is no ID table."""

    key, slope, reads_text, knows_new = 10, 1.0, True, True

    def check_text(self, config: Config, width: int) -> None:
        if config.whitenrec.groups > width:
            raise UserError(f"config.whitenrec.groups={config.whitenrec.groups} is more than the {width} of the text")

    def tower(self, config: Config) -> nn.Module:
        return WhitenRecTower(config)


def whitenrec(config: Config) -> Method:
    """One phase; the whitening of each view is fitted to all items' text and kept, the projection is trained.

    The text is whitened as training reads it: only with `text.transform=none` are these all its directions.

    Differs: the projection ends without an activation and its sum has length 1, for a scale of the logits that fits
    every recipe; in the authors' code of DWSRec, which has the same views, it ends with ReLU and scores are cosines.
    """
    kinds: dict[str, Fill] = {"full": whitened, "relaxed": partial(whitened_in_groups, groups=config.whitenrec.groups)}
    fill: dict[str, Fill] = {}
    for view in views(config):
        fill |= {f"towers/whitenrec/{view}/mean": text_mean, f"towers/whitenrec/{view}/matrix": kinds[view]}
    keep = tuple(f"towers/whitenrec/{view}" for view in views(config))
    return Method("whitenrec", (Phase("pretrain", ("whitenrec",), pretrain_loss, fill=fill, keep=keep),))


EXPERTS.register("whitenrec", WhitenRecExpert())
METHODS.register("whitenrec", whitenrec, settings=WhitenRecSettings)
