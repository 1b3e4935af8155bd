"""Multi-kernel maximum mean discrepancy between two samples (Eq. 2, 3, 5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pad_jax.blocks import in_blocks
from pad_jax.errors import UserError
from pad_jax.losses.recommendation import LOSSES
from pad_jax.registry import SECTIONS, Registry
from pad_jax.settings import Config, setting

ESTIMATORS = ("tllib", "unbiased", "biased")


@dataclass(frozen=True)
class MmdSettings:
    kernel: str = setting("gaussian", "kernel of the MMD", "P", choices="kernel")
    scales: tuple[int, ...] = setting(
        (-3, -2, -1, 0, 1), "m = 5 bandwidths", "P", unit="powers of two of the mean distance [C]", least=-30, below=31
    )
    estimator: str = setting("tllib", "how pairs of an item with itself count", "C", choices=ESTIMATORS)
    weight: float = setting(0.2, "gamma of Eq. (4)", "P", least=0)
    group: int = setting(
        16, "users whose events make up one sample", "P batch size", unit="users", least=1, below=2**16
    )
    drawn: int = setting(
        0, "items of the whole catalogue in each sample, with a loss over it", "O", unit="items", least=0, below=2**16
    )
    include_padding: bool = setting(
        False, "empty slots take part, as the pair (pad ID row, text of zeros)", "C", official=True
    )

    def check(self, config: Config) -> None:
        if not self.scales:
            raise UserError("config.mmd.scales must name one scale or more")
        if self.drawn and LOSSES[config.loss].needs != "catalogue":
            raise UserError(
                f"config.mmd.drawn={self.drawn} needs a loss over all items, as ce is: {config.loss} draws some itself"
            )


SECTIONS.register("mmd", MmdSettings)


class Kernel(NamedTuple):
    """A kernel between the rows of two matrices.

    `pairwise(x, y)` is [n, m] and symmetric. Without `shape` that is the kernel. With it, `pairwise` is a distance and
    the kernel is `shape(distance / mean distance, scales)`, the mean taken over all pairs of valid rows of both
    samples, diagonal included, as a constant: the bandwidth follows the data. `mean(rows, valid)` is that mean where
    it has a closed form; without it, the pairs are gone through once more.
    """

    pairwise: Callable[[Array, Array], Array]
    shape: Callable[[Array, Sequence[int]], Array] | None = None
    mean: Callable[[Array, Array], Array] | None = None


def mk_mmd(
    source: Float[Array, "n D"],
    target: Float[Array, "n D"],
    mask: Bool[Array, " n"] | None = None,
    kernel: str = "gaussian",
    scales: Sequence[int] = (-3, -2, -1, 0, 1),
    estimator: str = "tllib",
    block: int = 1 << 21,
) -> Float[Array, ""]:
    """Squared MK-MMD between the valid rows of two samples of the same size.

    With k = sum_u k_u over `scales` u, and n valid rows of each sample:

    unbiased   sum_{i != j} [k(s_i, s_j) + k(t_i, t_j)] / (n (n-1)) - 2/n^2 sum_{ij} k(s_i, t_j)
    tllib      the same + 2/(n-1), which is what the official code adds; it never matters for gradients
    biased     sum_{ij} [k(s_i, s_j) + k(t_i, t_j) - 2 k(s_i, t_j)] / n^2

    Kernels (`KERNELS`; m is the mean distance):

    gaussian      exp(-|x-y|^2 / (2 * 2^u * m)), Eq. (12)
    laplacian     exp(-|x-y|_1 / (2^u * m)), Eq. (17)
    linear        x . y, Eq. (14)
    cosine        cos(x, y)
    cosine_paper  1 - cos(x, y), Eq. (15) to the letter: a distance and no kernel, so minimising it drives the
                  samples apart; here to reproduce the paper only

    Differs: Eq. (12) and (17) use sigma in {-3, .., 1} as it stands; the official code uses 2^sigma times the batch
    mean, as here. Eq. (3) weighs the kernels by beta_u; the weights are 1, as in the official code.

    Fewer than two valid rows give 0. Products are taken in full precision on every device: TF32 halves a small MMD.

    Args:
        source: one sample.
        target: the other.
        mask: rows that count, in both samples; others are left out of everything, bandwidth included.
        kernel: one of `KERNELS`.
        scales: u of each kernel of the sum.
        estimator: one of `ESTIMATORS`.
        block: more pairs are gone through a block of rows at a time, so that memory grows with n and not with its
            square; the value is the same but for rounding.

    Raises UserError for an unknown kernel, ValueError for an unknown estimator.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, not {estimator!r}")
    pairwise, shape, mean_distance = KERNELS[kernel]
    valid = (jnp.ones(source.shape[0], bool) if mask is None else mask).astype(source.dtype)
    enough = valid.sum() >= 2
    n = jnp.where(enough, valid.sum(), 2)

    def total(function, x, y=None, diagonal=True):
        return sum_of_pairs(function, x, y, valid, diagonal, max(block // len(x), 1))

    function = pairwise
    if shape is not None:
        rows = jax.lax.stop_gradient((source, target))
        if mean_distance is not None:
            mean = mean_distance(jnp.concatenate(rows), jnp.concatenate([valid, valid]))
        else:
            mean = (total(pairwise, rows[0]) + total(pairwise, rows[1]) + 2 * total(pairwise, *rows)) / (2 * n) ** 2
        bandwidth = jnp.where(mean > 0, mean, 1)

        def function(x, y):
            return shape(pairwise(x, y) / bandwidth, scales)

    biased = estimator == "biased"
    within = total(function, source, diagonal=biased) + total(function, target, diagonal=biased)
    value = within / (n**2 if biased else n * (n - 1)) - 2 * total(function, source, target) / n**2
    if estimator == "tllib":
        value += 2 / (n - 1)
    return jnp.where(enough, value, 0)


def sum_of_pairs(function, x, y, valid, diagonal: bool, rows: int) -> Float[Array, ""]:
    """sum_ij valid_i valid_j function(x_i, y_j).

    Args:
        function: from rows of x and y to [n, m].
        x: one sample.
        y: the other; None for pairs within x. `function` is symmetric, so the gradient is then twice that of the first
            argument, and the second needs none.
        valid: which rows count, in both.
        diagonal: whether pairs i = j count.
        rows: of x that are gone through at a time.
    """
    if y is None:
        total = sum_of_pairs(function, x, jax.lax.stop_gradient(x), valid, diagonal, rows)
        return 2 * total - jax.lax.stop_gradient(total)
    if rows >= len(x):
        return _block_sum(function, diagonal, x, y, valid, valid, 0)
    first = jnp.arange(0, len(x), rows)

    @jax.checkpoint
    def add(total, block):
        x, x_valid, first = block
        return total + _block_sum(function, diagonal, x, y, x_valid, valid, first), None

    return jax.lax.scan(add, jnp.zeros((), x.dtype), (*in_blocks((x, valid), rows), first))[0]


def _block_sum(function, diagonal, x, y, x_valid, y_valid, first):
    values = function(x, y)
    if not diagonal:
        values = jnp.where(first + jnp.arange(len(x))[:, None] == jnp.arange(len(y))[None], 0, values)
    return jnp.einsum("i,ij,j", x_valid, values, y_valid, precision="highest")


def dot(x: Float[Array, "n D"], y: Float[Array, "m D"]) -> Float[Array, "n m"]:
    """x . y in full precision."""
    return jnp.matmul(x, y.T, precision="highest")


def cosine(x: Float[Array, "n D"], y: Float[Array, "m D"]) -> Float[Array, "n m"]:
    """x . y / (|x| |y|); 0 for a zero row."""

    def unit(z):
        square = jnp.sum(z * z, axis=-1, keepdims=True)
        return z * jax.lax.rsqrt(jnp.where(square > 0, square, 1))

    return dot(unit(x), unit(y))


def squared_distance(x: Float[Array, "n D"], y: Float[Array, "m D"]) -> Float[Array, "n m"]:
    """|x - y|^2 = |x|^2 + |y|^2 - 2 x.y, never below zero."""
    return jnp.maximum(jnp.sum(x * x, axis=-1)[:, None] + jnp.sum(y * y, axis=-1)[None] - 2 * dot(x, y), 0)


def mean_squared_distance(x: Float[Array, "n D"], valid: Float[Array, " n"]) -> Float[Array, ""]:
    """Mean of |x_i - x_j|^2 over all pairs of valid rows: twice their mean squared distance from the centre."""
    count = jnp.maximum(valid.sum(), 1)
    centred = x - jnp.einsum("i,id->d", valid, x, precision="highest")[None] / count
    return 2 * jnp.vdot(valid, jnp.sum(centred * centred, axis=-1)) / count


def l1_distance(x: Float[Array, "n D"], y: Float[Array, "m D"]) -> Float[Array, "n m"]:
    """sum_d |x_d - y_d|."""
    return jnp.abs(x[:, None] - y[None]).sum(axis=-1)


def exponentials(ratio: Float[Array, "n m"], scales: Sequence[int]) -> Float[Array, "n m"]:
    """sum_u exp(-ratio / 2^u); consecutive u take one exponential and squarings."""
    scales = sorted(scales, reverse=True)
    if scales != list(range(scales[0], scales[0] - len(scales), -1)):
        return sum((jnp.exp(-ratio / 2.0**scale) for scale in scales), jnp.zeros_like(ratio))
    power = jnp.exp(-ratio / 2.0 ** scales[0])
    total = power
    for _ in scales[1:]:
        power = power * power
        total += power
    return total


KERNELS: Registry[Kernel] = Registry("kernel", "mmd.kernel", configurable=False)
KERNELS.register(
    "gaussian",
    Kernel(squared_distance, lambda ratio, scales: exponentials(ratio / 2, scales), mean_squared_distance),
)
KERNELS.register("laplacian", Kernel(l1_distance, exponentials))
KERNELS.register("linear", Kernel(dot))
KERNELS.register("cosine", Kernel(cosine))
KERNELS.register("cosine_paper", Kernel(lambda x, y: 1 - cosine(x, y)))
