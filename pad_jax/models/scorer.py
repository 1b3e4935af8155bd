"""The scorer: score(u, i) = sum over experts k of gate_k(i) * <user_k, item_k(i)> (Eq. 8-11).

A gate with a method `of_users` has a second factor for each expert, which depends on the user, and one with `of_items`
a factor of the whole score, which depends on how often training met the item.

Everything the project compares is a set of experts under this one scorer. Parameters are arguments, never state:

    params = {"tables":   {"id": E_id, "aligned": E_al},          explicit arrays [N+1, D], row 0 padding
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
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pad_jax.batching.device import DeviceData
from pad_jax.batching.layout import Layout
from pad_jax.blocks import map_blocks
from pad_jax.errors import UserError
from pad_jax.losses.recommendation import Scored
from pad_jax.models.experts import EXPERTS, GATE_KEY, Expert, Params
from pad_jax.models.gate import GATES
from pad_jax.models.towers import ItemVectors, apply
from pad_jax.settings import Config

_CATALOGUE = 1 << 15  # items whose towers are evaluated at once


class Items(NamedTuple):
    """The item side of the score for R items.

    `vectors` are those of the experts whose score is an inner product, side by side and times their gates; `others`
    has the gate [R] and the items of each other expert.
    """

    vectors: Float[Array, "R F"]
    others: dict[str, tuple[Float[Array, " R"], Any]]


@dataclass(frozen=True)
class Scorer:
    """Pure functions over `params`. `gate` is the kind of gate."""

    config: Config
    experts: tuple[str, ...]
    gate: str

    def init(self, key: PRNGKeyArray, items: int, text_width: int) -> dict[str, Any]:
        """Fresh parameters of every expert; the same key gives an expert the same values in any set of experts."""
        params: dict[str, Any] = {"tables": {}, "towers": {}, "encoders": {}}
        for name in self.experts:
            expert = EXPERTS[name]
            own = expert.init(self.config, jax.random.fold_in(key, expert.key), items, text_width)
            for part, values in own.items():
                params[part][name] = values
        if len(self.experts) > 1:
            ours = (EXPERTS[name] for name in self.experts)
            vectors = tuple(None if e.own_score else jnp.zeros((1, e.width(self.config))) for e in ours)
            gate_key = jax.random.fold_in(key, GATE_KEY)
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
        looked_up = {}
        for name in self.experts:
            rows = EXPERTS[name].look_up(params.get("tables", {}).get(name), ids, data.arrays.get(name, {}))
            if rows is not None and name in params.get("rows", {}):
                rows += params["rows"][name]
            looked_up[name] = rows
        return self.vectors_from(params, looked_up, text, ids, key)

    def vectors_from(
        self,
        params: Params,
        looked_up: Mapping[str, Any],
        text: Float[Array, "R E"] | None,
        ids: Int[Array, " R"],
        key: PRNGKeyArray | None = None,
    ) -> dict[str, ItemVectors]:
        """`item_vectors` from what each expert has looked up.

        Args:
            params: of these experts.
            looked_up: by expert.
            text: text rows of the items; None where no expert reads text.
            ids: item numbers.
            key: draws dropout; without it there is none.
        """
        towers = params.get("towers", {})
        products = self._first_products({n: towers[n] for n in looked_up if n in towers}, text)
        result: dict[str, ItemVectors] = {}
        for name, rows in looked_up.items():
            rngs = self._rngs(key, EXPERTS[name], 0)
            inputs = self.config, towers.get(name, {}), text, rows, ids, products.get(name), rngs
            result[name] = self._checked(name, EXPERTS[name].items(*inputs), len(ids))
        return result

    def gates(
        self, params: Params, items: Mapping[str, ItemVectors], bucket: Int[Array, " R"], counts: Int[Array, " R"]
    ) -> Float[Array, "R K"]:
        """The gate of each expert (columns in the order of `experts`) for R items; ones for a single expert.

        Args:
            params: of all experts and the gate.
            items: every expert's vectors.
            bucket: of each item.
            counts: how often training met it.
        """
        if len(self.experts) == 1:
            return jnp.ones((len(bucket), 1))
        vectors = tuple(None if EXPERTS[name].own_score else items[name].vector for name in self.experts)
        weights = apply(gate := self._gate(), params["gate"], vectors, bucket)
        if weights.shape != (len(bucket), len(self.experts)):
            expected = [len(bucket), len(self.experts)]
            raise UserError(f"the gate {self.gate!r} must give weights {expected}, not {list(weights.shape)}")
        if hasattr(gate, "of_items"):
            of_items: Any = gate.apply({"params": params["gate"]}, counts, method="of_items")
            weights *= of_items[:, None]
        return weights

    @property
    def of_new(self) -> float:
        """What the weights of an item that is added to a trained model are multiplied by."""
        return getattr(self._gate(), "new", 1.0)

    def gated(
        self, params: Params, items: Mapping[str, ItemVectors], bucket: Int[Array, " R"], counts: Int[Array, " R"]
    ) -> Items:
        """The item side of the score, of the arguments of `gates`."""
        return self.weighted(vectors_of(items), self.gates(params, items, bucket, counts))

    def weighted(self, vectors: Mapping[str, Any], gates: Float[Array, "R K"]) -> Items:
        """`gated` of what `catalogue` returns."""
        places = {name: k for k, name in enumerate(self.experts)}
        inner = [gates[:, [k]] * vectors[name] for name, k in places.items() if not EXPERTS[name].own_score]
        others = {n: (gates[:, k], vectors[n]) for n, k in places.items() if EXPERTS[n].own_score}
        return Items(jnp.concatenate(inner, axis=-1) if inner else jnp.zeros((len(gates), 0)), others)

    def catalogue(self, params: Params, data: DeviceData) -> tuple[dict[str, Any], Float[Array, "I K"]]:
        """Every expert's vectors and the gates of all items, made some items at a time."""

        def some(ids):
            items = self.item_vectors(params, ids, data)
            bucket, counts = jnp.asarray(data.bucket)[ids], jnp.asarray(data.counts)[ids]
            return vectors_of(items), self.gates(params, items, bucket, counts)

        return map_blocks(some, jnp.arange(data.bucket.shape[0]), _CATALOGUE)

    def users(
        self,
        params: Params,
        inputs: Mapping[str, Any],
        layout: Layout,
        counts: Int[Array, " T"],
        key: PRNGKeyArray | None = None,
        target: Int[Array, " T"] | None = None,
    ) -> dict[str, Any]:
        """The user side of the score after every event, by expert, times what the gate makes of the user, if it does.

        Args:
            params: of all experts.
            inputs: every expert's item vectors of the T tokens.
            layout: where each token stands.
            counts: how often training met each token's item.
            key: draws dropout; without it there is none.
            target: in training, the item that is to be predicted at each token.
        """
        found = {}
        for name in self.experts:
            expert = EXPERTS[name]
            encoder, rngs = params.get("encoders", {}).get(name, {}), self._rngs(key, expert, 1)
            found[name] = expert.users(self.config, encoder, inputs[name], layout, target, rngs)
        if len(self.experts) > 1 and hasattr(gate := self._gate(), "of_users"):
            weights: Any = gate.apply({"params": params["gate"]}, counts, method="of_users")
            for name, weight in zip(self.experts, weights.T, strict=True):
                found[name] = EXPERTS[name].weighed(found[name], weight)
        return found

    def joined(self, users: Mapping[str, Any]) -> Float[Array, "n F"]:
        """User vectors side by side, of the experts whose score is an inner product; those of `Items.vectors`."""
        inner = [users[name] for name in self.experts if name in users and not EXPERTS[name].own_score]
        if inner:
            return jnp.concatenate(inner, axis=-1)
        return jnp.zeros((len(jax.tree.leaves(users)[0]), 0))

    def others(self, users: Mapping[str, Any], items: Items, rows: int) -> tuple[Scored, ...]:
        """The part of the score that is no inner product; `rows` is N + 1."""
        return tuple(
            Scored(partial(EXPERTS[name].score, rows=rows), users[name], theirs, gate)
            for name, (gate, theirs) in sorted(items.others.items())
        )

    def scores(self, users: Mapping[str, Any], items: Items, rows: int) -> Float[Array, "n R"]:
        """Of n users with R items; `rows` is N + 1."""
        total = self.joined(users) @ items.vectors.T
        return sum((other.block(other.users) for other in self.others(users, items, rows)), total)

    def _first_products(self, towers: Mapping[str, Any], text) -> dict[str, Float[Array, "R D"]]:
        """text @ `first_kernel` of each tower, in one product; nothing where there is only one."""
        found = {name: EXPERTS[name].first_kernel(self.config, tower) for name, tower in towers.items()}
        kernels = {name: kernel for name, kernel in found.items() if kernel is not None}
        if len(kernels) < 2:
            return {}
        dtype = self.config.model.dtype
        product = text.astype(dtype) @ jnp.concatenate(list(kernels.values()), axis=1).astype(dtype)
        ends = np.cumsum([kernel.shape[1] for kernel in kernels.values()])[:-1]
        return dict(zip(kernels, jnp.split(product, ends, axis=1), strict=True))

    def _checked(self, name: str, items: Any, count: int) -> ItemVectors:
        """The items that an expert gave. Raises UserError for what cannot be scored."""
        if not isinstance(items, ItemVectors):
            raise UserError(f"the expert {name!r} must give ItemVectors, not {type(items).__name__}")
        if not EXPERTS[name].own_score:
            expected, found = (count, EXPERTS[name].width(self.config)), jnp.shape(items.vector)
            if found != expected:
                raise UserError(
                    f"the expert {name!r} must give vectors {list(expected)}, not {list(found)}: override its `width`"
                )
        return items

    def _gate(self) -> nn.Module:
        return GATES[self.gate](self.config, self.experts)

    @staticmethod
    def _rngs(key: PRNGKeyArray | None, expert: Expert, side: int) -> dict[str, PRNGKeyArray]:
        return {} if key is None else {"dropout": jax.random.fold_in(key, 2 * expert.key + side)}


def vectors_of(items: Mapping[str, ItemVectors]) -> dict[str, Any]:
    """The vectors alone."""
    return {name: item.vector for name, item in items.items()}
