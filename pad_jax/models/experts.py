"""Experts: kinds of item vectors, each with a user encoder and a place in the gate.

An expert is a class with what it does differently from `Expert`, registered as an instance:
`EXPERTS.register("shared", Shared())`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pad_jax.batching.layout import Layout, lay_out
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.models.backbones import BACKBONES
from pad_jax.models.settings import products_in
from pad_jax.models.towers import AlignedTower, DiscoTower, ItemVectors, TextMLP, TextTower, apply
from pad_jax.registry import Registry
from pad_jax.settings import Config

Params = Mapping[str, Any]
GATE_KEY = 4  # number of the gate's random key; an expert has another


class UserEncoder(nn.Module):
    """A backbone and what turns its states into user vectors.

    `start`: the user vector is the state; or a zero-started map of it is added to the newest item's own vector
    (`residual`), so that training starts from "more of the same", or to the `profile` of the latest items, whose decay
    is learned and starts at 0.6. `scale`: what multiplies the user vector, that is every logit: `none`,
    `sqrt` (1/sqrt(D)), or `learned` (exp of a parameter that starts at `log_scale`).
    """

    backbone: nn.Module
    start: str
    scale: str
    log_scale: float
    dtype: str | None = None  # of the matrix product

    @nn.compact
    def __call__(self, x: Float[Array, "T D"], layout: Layout, train: bool) -> Float[Array, "T D"]:
        user = self.backbone(x, layout, train).astype(x.dtype)
        width = x.shape[-1]
        if self.start == "profile":
            decay = jax.nn.sigmoid(self.param("decay", lambda _: jnp.log(jnp.float32(1.5))))
            x = profile(x, layout, decay)
        if self.start != "state":
            user = x + nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="user")(user)
        if self.scale == "sqrt":
            return user / jnp.sqrt(width)
        if self.scale == "learned":
            return user * jnp.exp(self.param("log_scale", lambda _: jnp.float32(self.log_scale)))
        assert self.scale == "none"
        return user


def profile(x: Float[Array, "T D"], layout: Layout, decay: float | Float[Array, ""]) -> Float[Array, "T D"]:
    """The weighted mean of a user's items up to each token: each item's weight is `decay` times that of the next."""
    return jnp.einsum("zij,zjd->zid", profile_weights(layout, decay), layout.bins(x)).reshape(x.shape)


def profile_weights(layout: Layout, decay: float | Float[Array, ""]) -> Float[Array, "Z L L"]:
    """Of every token of a bin (columns) in the profile of each (rows)."""
    weight = jnp.where(layout.seen, decay ** jnp.maximum(layout.distance, 0), 0)
    return weight / jnp.maximum(weight.sum(axis=-1, keepdims=True), 1e-9)  # a token of nobody sees nothing


class Expert:
    """An expert with a table of ID rows and nothing else; what differs is overridden.

    key             a number of its own, the same for ever: its random draws are keyed by it
    columns         width of a row of its table in units of D; 0: it has no table
    by_item         row i of its table is item i and no other; False: rows are shared, see `look_up`
    reads_text      it needs a text table
    knows_new       it scores items that training never met, see `new_rows`
    reads_titles    `new_rows` is given the items' texts, too
    kept            names of its arrays that `new_rows` needs. Where there are some, all its arrays are made once for a
                    run and are the run's own from then on, for they are learned and not only computed
    start, slope    logits of its gate at bucket 0 (padding), and how much they rise to the coldest bucket
    learns          it has parameters
    own_score       its score is `score` and not the inner product of user and item vector
    """

    key: int
    columns: float = 0
    by_item: bool = True
    reads_text: bool = False
    knows_new: bool = False
    reads_titles: bool = False
    kept: tuple[str, ...] = ()
    start: float = 0.0
    slope: float = -1.0
    learns: bool = True
    own_score: bool = False

    def width(self, config: Config) -> int:
        """Of its vectors."""
        return config.model.width

    def table(self, config: Config, key: PRNGKeyArray, items: int) -> Float[Array, "I X"]:
        """Fresh ID rows. Differs: the official code draws row 0 too, which is padding; here it is zero."""
        return fresh_rows(config, key, (items + 1, round(self.columns * config.model.width)))

    def bounded(self, config: Config, rows: Float[Array, "J X"]) -> Float[Array, "J X"]:
        """Rows of its table after a step of the optimizer, brought back to where they may be."""
        return rows

    def row(self, config: Config) -> tuple[int, ...]:
        """Shape of what `look_up` gives of one item, where it has a table and a tower."""
        return (round(self.columns * config.model.width),)

    def arrays(self, config: Config, dataset: Dataset, text: Float[np.ndarray, "I E"] | None) -> dict[str, Any]:
        """What it needs on the device beside its parameters: by name, arrays or dictionaries of them."""
        return {}

    def check_text(self, config: Config, width: int) -> None:
        """Raises UserError for text, after its transform, of a width that it cannot read; asked if it `reads_text`."""
        if config.model.text_tower == "residual" and width != config.model.width:
            raise UserError(
                f"config.model.text_tower=residual needs text of width {config.model.width}, not {width}: set "
                + (
                    "text.components and those of text.more"
                    if config.text.more
                    else "--config.text.transform=principal"
                )
            )

    def look_up(self, table: Float[Array, "J X"] | None, ids: Int[Array, " R"], arrays: Params) -> Any:
        """What it has of items `ids` before its tower: an array [R, ..] or a dictionary of them; None for nothing."""
        return None if table is None else table[ids]

    def new_rows(
        self, config: Config, table: Float[Array | np.ndarray, "J X"] | None, arrays: Params, text: Float[Array, "R E"]
    ) -> Any:
        """`look_up` of items that training never met, with `knows_new`: zeros, None without a table. With
        `reads_titles` it has a last argument `titles`, their texts.

        Args:
            config: the run's.
            table: as it was trained; None where it has none.
            arrays: those that are `kept`.
            text: the items' text rows, as training would read them.
        """
        return jnp.zeros((len(text), *self.row(config))) if self.columns else None

    def retitled_rows(
        self,
        config: Config,
        table: Float[Array, "J X"] | None,
        ids: Int[np.ndarray, " R"],
        counts: Int[np.ndarray, " R"],
        new: Any,
    ) -> Any:
        """`look_up` of items that training knew and whose text is another one now: what it learned of each stays.

        Args:
            config: the run's.
            table: as it was trained; None where it has none.
            ids: item numbers.
            counts: training events of these items.
            new: `new_rows` of the texts of today.
        """
        return new if table is None or not self.by_item else table[ids]

    def tower(self, config: Config) -> nn.Module | None:
        """From text and what was looked up to item vectors, see `towers.Tower`; None: the latter is the vector."""
        return None

    def encoder(self, config: Config) -> nn.Module:
        """From the item vectors of a history to user vectors: the backbone, unless it brings its own."""
        m = config.model
        backbone = BACKBONES[config.backbone](config)
        return UserEncoder(backbone, m.user, m.logit_scale, m.log_scale, products_in(config))

    def score(self, users: Any, items: Any, rows: int) -> Float[Array, "n m"]:
        """Of n users with m items, with `own_score`; both sides an array or a dictionary of arrays. `rows` is N + 1."""
        raise UserError(f"the expert {type(self).__name__} has `own_score` and lacks the method `score`")

    def weighed(self, users: Any, weight: Float[Array, " T"]) -> Any:
        """The user side with every score times `weight`, for gates that weigh users; with `own_score` it is its own."""
        if self.own_score:
            raise UserError(f"the expert {type(self).__name__} has `own_score` and lacks the method `weighed`")
        return users * weight[:, None]

    def init(self, config: Config, key: PRNGKeyArray, items: int, text_width: int) -> dict[str, Any]:
        """Fresh parameters: `tables`, `towers` and `encoders`, those that it has."""
        table_key, tower_key, encoder_key = jax.random.split(key, 3)
        params: dict[str, Any] = {}
        if self.columns:
            params["tables"] = self.table(config, table_key, items)
        tower, ids = self.tower(config), jnp.arange(1)
        if tower is not None:
            rows = jnp.zeros((1, *self.row(config))) if self.columns else None
            params["towers"] = tower.init(tower_key, jnp.zeros((1, text_width)), rows, ids, False)["params"]
        length = config.data.length
        layout = lay_out(jnp.ones((1, length), bool), jnp.zeros(1, jnp.int32), length)
        history = jnp.zeros((length, self.width(config)))
        params["encoders"] = self.encoder(config).init(encoder_key, history, layout, False)["params"]
        return params

    def items(
        self,
        config: Config,
        tower: Params,
        text: Float[Array, "R E"] | None,
        rows: Any,
        ids: Int[Array, " R"],
        product: Float[Array, "R D"] | None = None,
        rngs: dict[str, PRNGKeyArray] | None = None,
    ) -> ItemVectors:
        """The vectors of R items.

        Args:
            config: the run's.
            tower: parameters of its tower.
            text: text rows of the items; None where no expert reads text.
            rows: what `look_up` gave.
            ids: item numbers, which name the draws of dropout.
            product: text @ `first_kernel`.
            rngs: keys of dropout; none for ranking.
        """
        module = self.tower(config)
        if module is None:
            return ItemVectors(rows)
        return apply(module, tower, text, rows, ids, bool(rngs), product, rngs=rngs)

    def users(
        self,
        config: Config,
        encoder: Params,
        x: Any,
        layout: Layout,
        target: Int[Array, " T"] | None = None,
        rngs: dict[str, PRNGKeyArray] | None = None,
    ) -> Any:
        """The user side of the score after every event.

        Args:
            config: the run's.
            encoder: parameters of its encoder.
            x: item vectors of the history's T tokens.
            layout: where each token stands.
            target: in training, the item that is to be predicted at each token.
            rngs: keys of dropout; none for ranking.
        """
        return apply(self.encoder(config), encoder, x, layout, bool(rngs), rngs=rngs)

    def first_kernel(self, config: Config, tower: Params) -> Float[Array, "E D"] | None:
        """The matrix that its tower multiplies text with before anything else; None where there is none."""
        return None


def fresh_rows(config: Config, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "I X"]:
    """Random ID rows by `model.id_std`, row 0 zeros."""
    if config.model.id_std > 0:
        table = config.model.id_std * jax.random.normal(key, shape)
    else:
        table = nn.initializers.xavier_normal()(key, shape)
    return table.at[0].set(0)


def _unique_key(name: str, expert: Expert, known: Registry[Expert]) -> None:
    if not isinstance(getattr(expert, "key", None), int):
        raise UserError(f"the expert {name!r} has no key: give its class a whole number from 100 on")
    taken = {GATE_KEY: "the gate"} | {other.key: title for title, other in known.items() if title != name}
    if expert.key in taken:
        raise UserError(f"the expert {name!r} has the key {expert.key} of {taken[expert.key]}; give it another number")


EXPERTS: Registry[Expert] = Registry("expert", check=_unique_key)


class IdExpert(Expert):
    """E[i]."""

    key, columns = 0, 1


class TextExpert(Expert):
    """f(T[i])."""

    key, slope, reads_text, knows_new = 2, 1.0, True, True

    def tower(self, config: Config) -> nn.Module:
        return TextTower(config)

    def first_kernel(self, config: Config, tower: Params) -> Float[Array, "E D"] | None:
        return TextMLP.first_kernel(tower["text"]) if config.model.text_tower == "mlp" else None


class AlignedExpert(TextExpert):
    """CAT(E[i], f(T[i])), or their sum."""

    key, columns, slope = 1, 1, -1.0

    def tower(self, config: Config) -> nn.Module:
        return AlignedTower(config)


class CorrectedExpert(Expert):
    """ID rows that correct what text says of an item: they start at zero, and where training never meets the item its
    own row takes no part, so that unseen items are those of text alone."""

    reads_text, knows_new, slope = True, True, 0.0

    def check_text(self, config: Config, width: int) -> None:
        pass

    def table(self, config: Config, key: PRNGKeyArray, items: int) -> Float[Array, "I X"]:
        return jnp.zeros((items + 1, round(self.columns * config.model.width)))

    def met(self, config: Config, counts: Any) -> Any:
        """What items that training met so often have of their own rows."""
        return (counts > 0).astype(np.float32)

    def arrays(self, config: Config, dataset: Dataset, text: Float[np.ndarray, "I E"] | None) -> dict[str, np.ndarray]:
        return {"met": self.met(config, dataset.counts)}

    def retitled_rows(
        self,
        config: Config,
        table: Float[Array, "J X"] | None,
        ids: Int[np.ndarray, " R"],
        counts: Int[np.ndarray, " R"],
        new: Any,
    ) -> Any:
        assert table is not None
        return self.met(config, counts)[:, None] * table[ids]

    def look_up(self, table: Float[Array, "J X"] | None, ids: Int[Array, " R"], arrays: Params) -> Any:
        assert table is not None
        return arrays["met"][ids][:, None] * table[ids]


class DiscoExpert(Expert):
    """Four parts of E[i] and f(T[i]), see `DiscoTower`."""

    key, columns, reads_text, knows_new = 3, 2, True, True

    def tower(self, config: Config) -> nn.Module:
        return DiscoTower(config)


EXPERTS.register("id", IdExpert())
EXPERTS.register("aligned", AlignedExpert())
EXPERTS.register("text", TextExpert())
EXPERTS.register("disco", DiscoExpert())
