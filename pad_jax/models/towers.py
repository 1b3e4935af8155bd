"""Item towers: from text rows (and ID rows) to item vectors."""

import flax.linen as nn
from jaxtyping import Array, Float, Int

from pad_jax.models.dropout import dropout

xavier_normal = nn.initializers.xavier_normal()


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
        given = None if product is None else lambda *_, **__: product
        first = nn.Dense(self.width, dtype=self.dtype, kernel_init=xavier_normal, dot_general=given)
        x = nn.gelu(first(text), approximate=False)
        for _ in range(self.layers):
            if train:
                x = dropout(x, self.dropout, self.make_rng("dropout"), uid)
            x = nn.gelu(nn.Dense(self.width, dtype=self.dtype, kernel_init=xavier_normal)(x), approximate=False)
        return x


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
