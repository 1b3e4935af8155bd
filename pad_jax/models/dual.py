"""The `dual` expert of LLM-ESR: an ID view and a text view of every item, and histories of both that query each other.

Liu et al. 2024, "LLM-ESR: Large Language Models Enhancement for Long-tailed Sequential Recommendation".
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pad_jax.batching.device import training_rows
from pad_jax.batching.layout import Layout
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.losses.recommendation import LOSSES
from pad_jax.models.dropout import dropout
from pad_jax.models.experts import EXPERTS, Expert
from pad_jax.models.sasrec import attend
from pad_jax.models.settings import products_in
from pad_jax.models.towers import ItemVectors, Linear2, Tower, xavier_normal
from pad_jax.settings import Config
from pad_jax.text.users import nearest, profiles

HEADS = 2  # of the cross attention


class DualTower(Tower):
    """[E ; a(T)] with the adapter `Linear2` of width D/2."""

    @nn.compact
    def __call__(self, text, rows, uid, train: bool, product=None) -> ItemVectors:
        adapter = Linear2(self.config.model.width // 2, products_in(self.config), name="adapter")
        adapted = adapter(text).astype(jnp.float32)
        return ItemVectors(jnp.concatenate([rows, adapted], axis=-1), (rows, adapted))


class DualViews(nn.Module):
    """[F(S_c') ; F(S_l')] of histories [E ; a(T)], with one backbone F of width d = D/2 for both views.

    S_v = drop(sqrt(d) e_v + P[slot]) for v of c (IDs) and l (text), with common positions P.
    S_c' = O(softmax(W_Q S_l (W_K S_c)^T / sqrt(d/2)) W_V S_c), in 2 heads, and S_l' with c and l exchanged: a view is
    replaced by what the other asks of it, an event seeing its user's events up to itself. W without bias, O with; each
    direction has its own. Without `cross` S_v' = S_v.

    Differs: the released cross attention and encoder see the whole history, targets included. There, GRU4Rec reads e_v
    alone and SASRec has P as its only positions; here every backbone is what it is elsewhere, so SASRec adds its own.
    """

    backbone: nn.Module
    cross: bool
    dropout: float
    dtype: str | None = None  # of the matrix products

    @nn.compact
    def __call__(self, x: Float[Array, "T D"], layout: Layout, train: bool) -> Float[Array, "T D"]:
        half = x.shape[-1] // 2
        positions = self.param("positions", xavier_normal, (layout.length, half))[layout.slot]

        def started(view):
            view = jnp.sqrt(half) * view + positions
            return dropout(view, self.dropout, self.make_rng("dropout"), layout.uid) if train else view

        def asked(view, other, name):
            """What `other` asks of `view`."""
            query, key, value = (
                nn.Dense(half, use_bias=False, dtype=self.dtype, kernel_init=xavier_normal, name=f"{name}_{part}")(y)
                for part, y in (("q", other), ("k", view), ("v", view))
            )
            y = attend(query, key, value, layout, HEADS)
            return nn.Dense(half, dtype=self.dtype, kernel_init=xavier_normal, name=f"{name}_o")(y).astype(x.dtype)

        ids, text = (started(view) for view in jnp.split(x, 2, axis=-1))
        if self.cross:
            ids, text = asked(ids, text, "ids"), asked(text, ids, "text")
        return jnp.concatenate([self.backbone(view, layout, train) for view in (ids, text)], axis=-1)


class Dual(Expert):
    """[E[i] ; a(T[i])], both of width D/2, and a user state of two halves: the score is the sum of the views' scores.

    The ID half of an item that training never saw is zeros, as in every expert: the ID table starts centred, so zeros
    are the mean item, which tells no candidates apart, and the rows have moved with training, so the text's own start
    would be of a space that is gone. The text half is as good as any item's.

    Its user encoder is `UserEncoder` over `DualViews`: `model.logit_scale` multiplies the whole state, and
    `model.user=residual` adds a zero-started map of it to the newest item's own vector, which may mix the halves.
    """

    key, columns, reads_text, knows_new = 6, 0.5, True, True

    def arrays(self, config: Config, dataset: Dataset, text: Float[np.ndarray, "I E"] | None) -> dict[str, np.ndarray]:
        """`similar` [rows, K]: the rows of `DeviceData.windows` that are the latest of the K users most like a row's.
        `teacher` [rows, D]: room for the states after each row. Nothing without `llmesr.weight`.

        Raises UserError where not more than K users train.
        """
        if not config.llmesr.weight:
            return {}
        assert text is not None
        _, owner = training_rows(dataset, config.data, LOSSES[config.loss].needs == "negatives")
        users, latest, which = np.unique(owner, return_index=True, return_inverse=True)
        neighbours = config.llmesr.neighbours
        if len(users) <= neighbours:
            raise UserError(
                f"{dataset.name}: {len(users)} users train, so none has config.llmesr.neighbours={neighbours} others: "
                "lower it, or set --config.llmesr.weight=0"
            )
        near = nearest(profiles(config, dataset, text)[users], neighbours)
        teacher = np.zeros((len(owner), self.width(config)), np.float32)
        return {"similar": latest[near][which].astype(np.int32), "teacher": teacher}

    def tower(self, config: Config) -> nn.Module:
        return DualTower(config)

    def encoder(self, config: Config) -> nn.Module:
        plain = super().encoder(config)
        views = DualViews(plain.backbone, config.llmesr.cross_attention, config.model.dropout, products_in(config))
        return plain.clone(backbone=views)


EXPERTS.register("dual", Dual())
