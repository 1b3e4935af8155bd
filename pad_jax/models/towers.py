"""Item towers: from text rows and ID rows to the item vectors of an expert."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pad_jax.models.dropout import dropout
from pad_jax.models.settings import products_in
from pad_jax.settings import Config

xavier_normal = nn.initializers.xavier_normal()


def unit(x: Float[Array, "R D"]) -> Float[Array, "R D"]:
    """Rows at length 1; zeros stay."""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(axis=-1, keepdims=True), 1e-24))


def apply(module: nn.Module, params: Any, *inputs: Any, rngs: Any = None) -> Any:
    """What a module makes of its inputs with these parameters."""
    return module.apply({"params": params}, *inputs, rngs=rngs)


class ItemVectors(NamedTuple):
    """What an expert makes of R items: their vectors, and what these were fused from.

    The vectors of an expert with a score of its own are a dictionary of arrays. The parts of the aligned expert are
    h^c and h^s of Eq. (5); those of disco are z1 to z4, see `DiscoTower`.
    """

    vector: Any  # [R, D], or a dictionary of arrays [R, ...]
    parts: tuple[Float[Array, "R D"], ...] = ()


class Linear(nn.Module):
    """x @ kernel + bias, as `nn.Dense`, of which the product may be given."""

    width: int
    dtype: str | None = None  # of the matrix product

    @nn.compact
    def __call__(self, x: Float[Array, "R E"], product: Float[Array, "R D"] | None = None) -> Float[Array, "R D"]:
        kernel = self.param("kernel", xavier_normal, (x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        if product is None:
            product = jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
        return product + bias[None]


class TextMLP(nn.Module):
    """f_w of Eq. (7): GELU(Linear E->D), then `layers` times [Dropout, Linear D->D, GELU] (official `FC_Layers`).

    With `product`, which is text @ kernel of the first Linear, that product is not taken again: the rows of several
    towers are the same, and one product with their kernels side by side is faster than one for each.
    """

    width: int
    layers: int = 4
    dropout: float = 0.1
    dtype: str | None = None  # of the matrix products

    @nn.compact
    def __call__(
        self, text: Float[Array, "R E"], uid: Int[Array, " R"], train: bool, product: Float[Array, "R D"] | None = None
    ) -> Float[Array, "R D"]:
        x = nn.gelu(Linear(self.width, self.dtype, name="Dense_0")(text, product), approximate=False)
        for layer in range(1, self.layers + 1):
            if train:
                x = dropout(x, self.dropout, self.make_rng("dropout"), uid)
            dense = nn.Dense(self.width, dtype=self.dtype, kernel_init=xavier_normal, name=f"Dense_{layer}")
            x = nn.gelu(dense(x), approximate=False)
        return x

    @staticmethod
    def first_kernel(params: Any) -> Float[Array, "E D"]:
        """The kernel that `product` is of."""
        return params["Dense_0"]["kernel"]


class TextResidual(nn.Module):
    """The text row itself (E = D) plus an MLP whose last layer starts at zero: training starts in the text's geometry.

    Used by recipe `best` with `text.transform=principal`.
    """

    width: int
    dropout: float = 0.1
    dtype: str | None = None  # of the matrix products

    @nn.compact
    def __call__(self, text: Float[Array, "R D"], uid: Int[Array, " R"], train: bool) -> Float[Array, "R D"]:
        x = nn.gelu(
            nn.Dense(2 * self.width, dtype=self.dtype, kernel_init=xavier_normal)(text * self.width**0.5),
            approximate=False,
        )
        if train:
            x = dropout(x, self.dropout, self.make_rng("dropout"), uid)
        return text + nn.Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.zeros)(x)


class Linear2(nn.Module):
    """W2 (W1 x + b1) + b2 with W1 [E, E/2] and W2 [E/2, D], and no activation: the adapter of LLMEmb and LLM-ESR."""

    width: int
    dtype: str | None = None  # of the matrix products

    @nn.compact
    def __call__(self, x: Float[Array, "R E"]) -> Float[Array, "R D"]:
        half = nn.Dense(max(x.shape[-1] // 2, 1), dtype=self.dtype, kernel_init=xavier_normal)(x)
        return nn.Dense(self.width, dtype=self.dtype, kernel_init=xavier_normal)(half)


class Whitening(nn.Module):
    """(x - mean) @ matrix, both of them zeros until a phase fills them from its text (`methods/fills.py`).

    As frozen parameters of a tower they are stored and served with it, so that new items pass through the same map.
    """

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "R E"]) -> Float[Array, "R X"]:
        mean = self.param("mean", nn.initializers.zeros, (x.shape[-1],))
        matrix = self.param("matrix", nn.initializers.zeros, (x.shape[-1], self.width))
        return jnp.matmul(x - mean[None], matrix, precision="highest")  # TF32 would lose the weak directions


class Dense(nn.Module):
    """GELU(Linear X->D (Dropout x)). Over [ID ; text] it is CAT of Eq. (6)."""

    width: int
    dropout: float = 0.1
    dtype: str | None = None  # of the matrix product

    @nn.compact
    def __call__(self, x: Float[Array, "R X"], uid: Int[Array, " R"], train: bool) -> Float[Array, "R D"]:
        if train:
            x = dropout(x, self.dropout, self.make_rng("dropout"), uid)
        return nn.gelu(nn.Dense(self.width, dtype=self.dtype, kernel_init=xavier_normal)(x), approximate=False)


class Tower(nn.Module):
    """What the item towers of all experts are made from.

    A tower's `__call__(text [R, E], rows, uid [R], train, product)` returns `ItemVectors`. `rows` is what the expert
    looks up, `uid` are item numbers, which name the draws of dropout, `product` is of `TextMLP`.
    """

    config: Config

    def projected(self, name: str, text, uid, train: bool, product=None) -> Float[Array, "R D"]:
        """f(T), by `model.text_tower`."""
        model, dtype = self.config.model, products_in(self.config)
        if model.text_tower == "mlp":
            tower = TextMLP(model.width, model.text_layers, model.dropout, dtype, name=name)
            return tower(text, uid, train, product).astype(jnp.float32)
        if model.text_tower == "linear2":
            return Linear2(model.width, dtype, name=name)(text).astype(jnp.float32)
        assert model.text_tower == "residual"
        return TextResidual(model.width, model.dropout, dtype, name=name)(text, uid, train).astype(jnp.float32)

    def layer(self, name: str, x, uid, train: bool) -> Float[Array, "R D"]:
        """A `Dense` of width D."""
        dense = Dense(self.config.model.width, self.config.model.dropout, products_in(self.config), name=name)
        return dense(x, uid, train).astype(jnp.float32)

    def joined(self, parts: tuple[Float[Array, "R D"], ...], uid, train: bool) -> Float[Array, "R D"]:
        """CAT: GELU(W [parts]), or with `model.fusion=linear` W [parts], which starts as their sum."""
        both = jnp.concatenate(parts, axis=-1)
        if self.config.model.fusion != "linear":
            return self.layer("cat", both, uid, train)
        width, identities = self.config.model.width, jnp.concatenate([jnp.eye(parts[0].shape[-1])] * len(parts))
        linear = nn.Dense(
            width, use_bias=False, dtype=products_in(self.config), kernel_init=lambda *_: identities, name="cat"
        )
        return linear(both).astype(jnp.float32)


class TextTower(Tower):
    """f(T)."""

    @nn.compact
    def __call__(self, text, rows, uid, train: bool, product=None) -> ItemVectors:
        return ItemVectors(self.projected("text", text, uid, train, product))


class AlignedTower(Tower):
    """CAT(E, f(T)) of Eq. (6), or E + f(T) with `model.fusion=add`.

    Differs: `linear`, the CAT of recipe `best`, has no GELU, which would leave no item vector a negative part.
    """

    @nn.compact
    def __call__(self, text, rows, uid, train: bool, product=None) -> ItemVectors:
        parts = rows, self.projected("text", text, uid, train, product)
        if self.config.model.fusion == "add":
            return ItemVectors(parts[0] + parts[1], parts)
        return ItemVectors(self.joined(parts, uid, train), parts)


class DiscoTower(Tower):
    """CAT of four parts: z1 = mlp(E) of the IDs alone, z2 = mlp(E') and z3 = mlp(f(T)) common to both, z4 = mlp(f'(T))
    of the text alone; E and E' lie side by side in the expert's table."""

    @nn.compact
    def __call__(self, text, rows, uid, train: bool, product=None) -> ItemVectors:
        own, common = jnp.split(rows, 2, axis=-1)
        texts = (self.projected(name, text, uid, train) for name in ("text", "text_alone"))
        parts = tuple(self.layer(f"part_{n}", x, uid, train) for n, x in enumerate((own, common, *texts), 1))
        return ItemVectors(self.joined(parts, uid, train), parts)
