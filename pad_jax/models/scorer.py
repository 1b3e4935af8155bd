"""The scorer: score(u, i) = sum over experts k of gate_k(i) * <user_k, item_k(i)> (Eq. 8-11).

Everything the project compares is a set of experts under this one scorer. Parameters are arguments, never state:

    params = {"tables":   {"id": E_id, "aligned": E_al},          explicit arrays [N+1, D], row 0 padding; "disco"
                                                                  has two in one, [N+1, 2 D]
              "towers":   {"aligned": f_w and CAT, "text": f_w'},  from text (and ID) rows to item vectors
              "encoders": {"id": S_id, "aligned": S_al, "text": S_llm},
              "gate":     a_k and its network, only with two experts or more,
              "rows":     optional, {"id": [R, D]}: added to the rows that `item_vectors` looks up, so that a loss can
                          be differentiated in those rows alone}

With `model.dtype=bfloat16` the matrix products of encoders and towers take bfloat16, and so does what is kept for the
backward pass; parameters, residual sums, norms, softmax, gate, scores, MMD, losses and ranking stay in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pad_jax.blocks import map_blocks
from pad_jax.config import GateConfig, ModelConfig
from pad_jax.data.batches import DeviceData
from pad_jax.models.caser import Caser
from pad_jax.models.gate import Gate
from pad_jax.models.gru4rec import GRU4Rec
from pad_jax.models.layout import Layout, lay_out
from pad_jax.models.sasrec import SASRec
from pad_jax.models.towers import Dense, TextMLP, TextResidual

#: Kinds of item vectors: id E[i], aligned CAT(E[i], f(T[i])), text f(T[i]), disco see `Towers`.
EXPERTS = ("id", "aligned", "text", "disco")
#: Width of an expert's ID rows, in units of D.
TABLES = {"id": 1, "aligned": 1, "disco": 2}
Params = Mapping[str, Any]
_CATALOGUE = 1 << 15  # items whose towers are evaluated at once


class ItemVectors(NamedTuple):
    """What an expert makes of R items: their vectors, and what these were fused from.

    The parts of the aligned expert are h^c and h^s of Eq. (5); those of disco are z1 to z4, see `Towers`.
    """

    vector: Float[Array, "R D"]
    parts: tuple[Float[Array, "R D"], ...] = ()


class UserEncoder(nn.Module):
    """A backbone and what turns its states into user vectors.

    `residual`: the user vector is the newest item's own vector plus a zero-started map of the state, so that training
    starts from "more of the same". `scale`: what multiplies the user vector, that is every logit: `none`,
    `sqrt` (1/sqrt(D)), or `learned` (exp of a parameter that starts at `log_scale`).
    """

    backbone: nn.Module
    residual: bool
    scale: str
    log_scale: float
    dtype: str | None = None  # of the matrix product

    @nn.compact
    def __call__(self, x: Float[Array, "T D"], layout: Layout, train: bool) -> Float[Array, "T D"]:
        user = self.backbone(x, layout, train).astype(x.dtype)
        width = x.shape[-1]
        if self.residual:
            user = x + nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="user")(user)
        if self.scale == "sqrt":
            return user / jnp.sqrt(width)
        if self.scale == "learned":
            return user * jnp.exp(self.param("log_scale", lambda _: jnp.float32(self.log_scale)))
        return user


class Towers(nn.Module):
    """The item tower of one expert.

    text     f(T)
    aligned  CAT(E, f(T)), or E + f(T) with `model.fusion=add`
    disco    CAT of four parts: z1 = mlp(E) of the IDs alone, z2 = mlp(E') and z3 = mlp(f(T)) common to both, z4 =
             mlp(f'(T)) of the text alone; E and E' lie side by side in the expert's table
    """

    model: ModelConfig
    expert: str

    @nn.compact
    def __call__(self, text, ids, uid, train: bool, product=None) -> ItemVectors:
        if self.expert == "disco":
            own, common = jnp.split(ids, 2, axis=-1)
            sides = own, common, self._text(text, uid, train, "text"), self._text(text, uid, train, "text_alone")
            parts = tuple(self._layer(f"part_{n}", x, uid, train) for n, x in enumerate(sides, 1))
            return ItemVectors(self._cat(parts, uid, train), parts)
        part = self._text(text, uid, train, "text", product)
        if self.expert == "text":
            return ItemVectors(part)
        fused = ids + part if self.model.fusion == "add" else self._cat((ids, part), uid, train)
        return ItemVectors(fused, (ids, part))

    def _text(self, text, uid, train: bool, name: str, product=None):
        width, rate, dtype = self.model.width, self.model.dropout, products_in(self.model)
        if self.model.text_tower == "mlp":
            part = TextMLP(width, self.model.text_layers, rate, dtype, name=name)(text, uid, train, product)
        else:
            part = TextResidual(width, rate, dtype, name=name)(text, uid, train)
        return part.astype(jnp.float32)

    def _layer(self, name: str, x, uid, train: bool):
        layer = Dense(self.model.width, self.model.dropout, products_in(self.model), name=name)
        return layer(x, uid, train).astype(jnp.float32)

    def _cat(self, parts, uid, train: bool):
        return self._layer("cat", jnp.concatenate(parts, axis=-1), uid, train)


@dataclass(frozen=True)
class Scorer:
    """Pure functions over `params`; the fields are the hyper-parameters they share."""

    model: ModelConfig
    gate: GateConfig
    backbone: str
    experts: tuple[str, ...]
    buckets: int
    length: int

    def init(self, key: PRNGKeyArray, items: int, text_width: int) -> dict[str, Any]:
        """Fresh parameters of every expert; the same key gives an expert the same values in any set of experts."""
        params: dict[str, Any] = {"tables": {}, "towers": {}, "encoders": {}}
        width = self.model.width
        layout = lay_out(jnp.ones((1, self.length), bool), jnp.zeros(1, jnp.int32), self.length)
        uid = jnp.arange(1)
        for expert in self.experts:
            table_key, tower_key, encoder_key = jax.random.split(jax.random.fold_in(key, EXPERTS.index(expert)), 3)
            columns = TABLES.get(expert, 0) * width
            if columns:
                params["tables"][expert] = self._table(table_key, items, columns)
            if expert != "id":
                ids = jnp.zeros((1, columns)) if columns else None
                text = jnp.zeros((1, text_width))
                params["towers"][expert] = self._tower(expert).init(tower_key, text, ids, uid, False)["params"]
            params["encoders"][expert] = self._encoder().init(
                encoder_key, jnp.zeros((self.length, width)), layout, False
            )["params"]
        if len(self.experts) > 1:
            vectors = tuple(jnp.zeros((1, width)) for _ in self.experts)
            gate_key = jax.random.fold_in(key, len(EXPERTS))
            params["gate"] = self._gate().init(gate_key, vectors, jnp.zeros(1, jnp.int32))["params"]
        return params

    def item_vectors(
        self,
        params: Params,
        ids: Int[Array, " R"],
        data: DeviceData,
        key: PRNGKeyArray | None = None,
    ) -> dict[str, ItemVectors]:
        """Every expert's vectors of items `ids`. With a key, dropout; its draws belong to the item.

        Differs: in the official code every occurrence of an item in a batch has draws of its own.
        """
        text = data.text[ids].astype(jnp.float32) if data.text.shape[1] else None
        products = self._first_products(params.get("towers", {}), text)
        result: dict[str, ItemVectors] = {}
        for expert in self.experts:
            rows: Any = params["tables"][expert][ids] if expert in TABLES else None
            if rows is not None and params.get("rows"):
                rows += params["rows"].get(expert, 0)
            if expert == "id":
                result[expert] = ItemVectors(rows)
            else:
                tower, rngs = params["towers"][expert], self._rng(key, expert, 0)
                inputs = (text, rows, ids, key is not None, products.get(expert))
                result[expert] = apply(self._tower(expert), tower, *inputs, rngs=rngs)
        return result

    def gates(self, params: Params, items: Mapping[str, ItemVectors], bucket: Int[Array, " R"]) -> Float[Array, "R K"]:
        """The gate of each expert (columns in the order of `experts`) for R items; ones for a single expert."""
        if len(self.experts) == 1:
            return jnp.ones((len(bucket), 1))
        vectors = tuple(items[expert].vector for expert in self.experts)
        return apply(self._gate(), params["gate"], vectors, bucket)

    def gated(self, params: Params, items: Mapping[str, ItemVectors], bucket: Int[Array, " R"]) -> Float[Array, "R F"]:
        """Item side of the score: the experts' vectors times their gates, side by side."""
        return self.weighted(vectors_of(items), self.gates(params, items, bucket))

    def weighted(self, vectors: Mapping[str, Float[Array, "R D"]], gates: Float[Array, "R K"]) -> Float[Array, "R F"]:
        """`gated` of what `catalogue` returns."""
        return jnp.concatenate([gates[:, [k]] * vectors[e] for k, e in enumerate(self.experts)], axis=-1)

    def catalogue(self, params: Params, data: DeviceData) -> tuple[dict[str, Float[Array, "I D"]], Float[Array, "I K"]]:
        """Every expert's vectors and the gates of all items, made some items at a time."""

        def some(ids):
            items = self.item_vectors(params, ids, data)
            return vectors_of(items), self.gates(params, items, jnp.asarray(data.bucket)[ids])

        return map_blocks(some, jnp.arange(data.bucket.shape[0]), _CATALOGUE)

    def users(
        self,
        params: Params,
        inputs: Mapping[str, Float[Array, "T D"]],
        layout: Layout,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "T F"]:
        """User side of the score after every event: the experts' user vectors side by side."""
        vectors = []
        for expert in self.experts:
            encoder, rngs = params["encoders"][expert], self._rng(key, expert, 1)
            vectors.append(apply(self._encoder(), encoder, inputs[expert], layout, key is not None, rngs=rngs))
        return jnp.concatenate(vectors, axis=-1)

    def _table(self, key: PRNGKeyArray, items: int, columns: int) -> Float[Array, "I X"]:
        """Differs: the official code draws row 0 too, which is padding; here it is zero."""
        shape = (items + 1, columns)
        if self.model.id_std > 0:
            table = self.model.id_std * jax.random.normal(key, shape)
        else:
            table = nn.initializers.xavier_normal()(key, shape)
        return table.at[0].set(0)

    def _first_products(self, towers: Mapping[str, Any], text) -> dict[str, Float[Array, "R D"]]:
        """text @ kernel of the first layer of each text MLP, in one product; nothing where there is only one."""
        names = [expert for expert in self.experts if expert in ("aligned", "text")]
        if len(names) < 2 or self.model.text_tower != "mlp":
            return {}
        kernels = jnp.concatenate([towers[name]["text"]["Dense_0"]["kernel"] for name in names], axis=1)
        product = text.astype(self.model.dtype) @ kernels.astype(self.model.dtype)
        return dict(zip(names, jnp.split(product, len(names), axis=1), strict=True))

    def _tower(self, expert: str) -> Towers:
        return Towers(self.model, expert)

    def _gate(self) -> Gate:
        return Gate(self.experts, self.buckets, self.gate.kind, self.gate.start)

    def _encoder(self) -> UserEncoder:
        m = self.model
        backbone: nn.Module
        if self.backbone == "sasrec":
            backbone = SASRec(m.blocks, m.heads, m.ffn, m.dropout, m.norm, products_in(m))
        elif self.backbone == "gru4rec":
            backbone = GRU4Rec(m.gru_hidden, m.gru_layers, m.dropout, products_in(m))
        else:
            backbone = Caser(m.caser_horizontal, m.caser_vertical, m.dropout, products_in(m))
        return UserEncoder(backbone, m.user == "residual", m.logit_scale, m.log_scale, products_in(m))

    @staticmethod
    def _rng(key: PRNGKeyArray | None, expert: str, side: int) -> dict[str, PRNGKeyArray]:
        if key is None:
            return {}
        return {"dropout": jax.random.fold_in(key, 2 * EXPERTS.index(expert) + side)}


def products_in(model: ModelConfig) -> str | None:
    """The dtype of matrix products; None is that of the parameters."""
    return None if model.dtype == "float32" else model.dtype


def apply(module: nn.Module, params: Params, *inputs: Any, rngs: dict[str, PRNGKeyArray] | None = None) -> Any:
    return module.apply({"params": params}, *inputs, rngs=rngs)


def vectors_of(items: Mapping[str, ItemVectors]) -> dict[str, Float[Array, "R D"]]:
    """The vectors alone."""
    return {expert: item.vector for expert, item in items.items()}
