"""The expert whose ID rows are shared: an item is the rows of its codes, and its codes come from its text."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pad_jax.console import say
from pad_jax.data.dataset import Dataset
from pad_jax.models.experts import EXPERTS, Expert, Params
from pad_jax.models.settings import products_in
from pad_jax.models.towers import ItemVectors, xavier_normal
from pad_jax.settings import Config
from pad_jax.text import codes


class CodesTower(nn.Module):
    """e = [F_1[c_1]; ..; F_M[c_M]], e' = e * sigmoid(W_up gelu(W_down e)); the mean of its M parts, or Linear(e').

    Without biases where they would give padding a vector. Differs: in the paper the parts are features of a click
    model, which no sequence model has a place for.
    """

    config: Config

    @nn.compact
    def __call__(self, text, rows, uid, train: bool, product=None) -> ItemVectors:
        settings, dtype = self.config.codes, products_in(self.config)
        count, books, width = rows.shape
        e = rows.reshape(count, books * width)
        if settings.bottleneck:
            down = nn.Dense(settings.bottleneck, dtype=dtype, kernel_init=xavier_normal, name="down")(e)
            up = nn.Dense(books * width, dtype=dtype, kernel_init=xavier_normal, name="up")
            e = e * nn.sigmoid(up(nn.gelu(down, approximate=False)).astype(jnp.float32))
        if settings.fusion == "mean":
            return ItemVectors(e.reshape(rows.shape).mean(axis=1))
        assert settings.fusion == "linear"
        out = nn.Dense(width, use_bias=False, dtype=dtype, kernel_init=xavier_normal, name="out")
        return ItemVectors(out(e).astype(jnp.float32))


class CodesExpert(Expert):
    """F_m[c_m(T[i])]: row 1 + k + m K of its table is code k of book m. An item that training never met has codes."""

    key, columns, by_item, slope, reads_text, knows_new, kept = 5, 1, False, 0.0, True, True, ("quantiser",)

    def table(self, config: Config, key: PRNGKeyArray, items: int) -> Float[Array, "J D"]:
        return super().table(config, key, config.codes.books * config.codes.size)

    def row(self, config: Config) -> tuple[int, ...]:
        return config.codes.books, config.model.width

    def arrays(self, config: Config, dataset: Dataset, text: Float[np.ndarray, "I E"] | None) -> dict[str, Any]:
        assert text is not None
        say(f"codes: learning {config.codes.books} books of {config.codes.size} from {dataset.items:,} texts")
        quantiser = codes.learn(text[1:].astype(np.float32), config.codes, config.seed)
        found = np.asarray(codes.assign(quantiser, config.codes, text[1:]), np.int32)
        say(f"codes: {codes.summary(found, config.codes.size)}")
        rows = np.concatenate([np.zeros_like(found[:1]), self._rows(config, found)])
        return {"codes": rows.astype(np.int32), "quantiser": quantiser}

    def look_up(
        self, table: Float[Array, "J D"] | None, ids: Int[Array, " R"], arrays: Params
    ) -> Float[Array, "R M D"]:
        assert table is not None
        return table[arrays["codes"][ids]]

    def new_rows(
        self, config: Config, table: Float[Array | np.ndarray, "J D"] | None, arrays: Params, text: Float[Array, "R E"]
    ) -> Float[Array, "R M D"]:
        books, size = config.codes.books, config.codes.size
        quantiser = arrays["quantiser"]
        assert table is not None
        if quantiser["books"].shape[:2] != (books, size) or table.shape != (books * size + 1, config.model.width):
            raise ValueError("its codes are not those of its settings")
        return jnp.asarray(table)[self._rows(config, codes.assign(quantiser, config.codes, text))]

    def tower(self, config: Config) -> nn.Module:
        return CodesTower(config)

    @staticmethod
    def _rows(config: Config, found: Any) -> Any:
        """Rows of the table by codes [n, M]."""
        return found + 1 + config.codes.size * np.arange(config.codes.books)[None]


EXPERTS.register("codes", CodesExpert(), settings=codes.CodesSettings)
