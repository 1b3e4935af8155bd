"""What text vectors go through before training reads them: fitted to the items, and applied to new ones alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import scipy.sparse
from jaxtyping import Float, Num
from scipy.sparse.linalg import LinearOperator, eigsh

from pad_jax.errors import UserError
from pad_jax.registry import Registry
from pad_jax.settings import Config

_ROWS = 1 << 14  # that are transformed at once
_SMALL = 512  # sparse rows whose inner products are one matrix
_NOISE = 1e-6  # sum of squares, for each of sparse unit rows, that is no direction but rounding
Sparse: TypeAlias = scipy.sparse.csr_matrix
Arrays = Mapping[str, Num[np.ndarray, "..."]]


class TextTransform(NamedTuple):
    """A kind of transform.

    `fit(rows, config)` makes the arrays that `apply(arrays, rows)` needs: rows [N, E] of the items, and rows [n, E] of
    any items; `apply` gives each row by itself. With `sparse` both may be a csr_matrix, too.
    """

    fit: Callable[[Any, Config], Arrays]
    apply: Callable[[Arrays, Any], Float[np.ndarray, "n _"]]
    sparse: bool = False


@dataclass(frozen=True)
class Transform:
    """A fitted transform, a function of rows."""

    kind: str
    arrays: Arrays = field(default_factory=dict)

    def __call__(self, rows: Float[np.ndarray, "N E"] | Sparse) -> Float[np.ndarray, "N _"]:
        apply = TRANSFORMS[self.kind].apply
        if not self.arrays:
            return apply(self.arrays, rows)
        parts = [apply(self.arrays, rows[n : n + _ROWS]) for n in range(0, rows.shape[0], _ROWS)]
        return np.concatenate(parts) if parts else apply(self.arrays, rows)


def fit(rows: Float[np.ndarray, "N E"] | Sparse, config: Config) -> Transform:
    """The transform `text.transform` for the items' vectors; others, of new items, then go through the same one.

    Embedding spaces of language models are narrow cones: without centring, differences between items are small
    beside what all items share. Raises UserError for sparse rows and a transform that needs them whole.
    """
    kind = config.text.transform
    if scipy.sparse.issparse(rows) and not TRANSFORMS[kind].sparse:
        fitting = " or ".join(name for name, transform in TRANSFORMS.items() if transform.sparse)
        raise UserError(
            f"config.text.transform={kind} cannot make narrow rows of the {rows.shape[1]:,} words and pairs of a "
            f"lexical table: use {fitting}"
        )
    return Transform(kind, TRANSFORMS[kind].fit(rows, config))


def unit(rows: Float[np.ndarray, "*N E"]) -> Float[np.ndarray, "*N E"]:
    """Vectors at length 1, zeros as they are, however large or small their values."""
    scaled = np.ldexp(rows, -np.frexp(np.abs(rows).max(axis=-1, keepdims=True))[1])  # squares of these fit
    return scaled / np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), 1e-12)


TRANSFORMS: Registry[TextTransform] = Registry("transform", "text.transform")


def _mean(rows: Float[np.ndarray, "N E"]) -> Float[np.ndarray, " E"]:
    return sum(rows[n : n + _ROWS].sum(axis=0, dtype=np.float64) for n in range(0, len(rows), _ROWS)) / len(rows)


def _centred(rows: Float[np.ndarray, "N E"], mean: Float[np.ndarray, " E"]):
    return (rows[n : n + _ROWS].astype(np.float64) - mean for n in range(0, len(rows), _ROWS))


def _fit_standardize(rows: Float[np.ndarray, "N E"], config: Config) -> Arrays:
    """Each dimension centred and scaled to unit variance over the items."""
    mean = _mean(rows)
    deviation = np.sqrt(sum((x**2).sum(axis=0) for x in _centred(rows, mean)) / len(rows))
    return {"mean": mean, "matrix": np.where(deviation > 0, deviation, 1)}


def _standardize(arrays: Arrays, rows: Float[np.ndarray, "n E"]) -> Float[np.ndarray, "n E"]:
    return ((rows.astype(np.float64) - arrays["mean"]) / arrays["matrix"]).astype(np.float32)


def _directions(rows: Float[np.ndarray, "N E"] | Sparse, count: int) -> tuple[Any, Any, Any]:
    """Mean [E], variances [E] along the principal directions, the largest first, and these, the columns of [E, E].

    Of sparse rows `count` directions at most, in float32.
    """
    if scipy.sparse.issparse(rows):
        mean, values, directions = _sparse_directions(rows, count)
    else:
        mean = _mean(rows)
        values, directions = np.linalg.eigh(sum(x.T @ x for x in _centred(rows, mean)))
    order = np.argsort(-values)
    directions = directions[:, order]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    return mean, values[order] / rows.shape[0], directions * np.where(largest < 0, -1, 1).astype(directions.dtype)


def _sparse_directions(rows: Sparse, count: int) -> tuple[Any, Any, Any]:
    """As `_directions`, from the eigenvectors U of the items' Gram matrix G = C X X^T C, C x = x - mean(x): X^T U.

    G is never made of many items, nor are the centred rows. Lanczos works on G + 1, which is never zero.
    """
    items, columns = rows.shape[0], rows.T.tocsr()

    def shifted(x):
        product = rows @ (columns @ (x - x.mean(axis=0)))
        return product - product.mean(axis=0) + x

    if items <= _SMALL:
        values, left = np.linalg.eigh(shifted(np.eye(items)))
    else:
        start = np.random.default_rng(0).standard_normal(items, np.float32)
        operator = LinearOperator((items, items), shifted, dtype=np.float32)
        values, left = eigsh(operator, min(count, items - 1), v0=start)
    values, left = values[-count:] - 1, left[:, -count:]
    values = np.where(values > _NOISE * items, values, 0)
    directions = (columns @ left / np.sqrt(np.where(values > 0, values, np.inf))).astype(np.float32)
    return np.asarray(rows.mean(axis=0), np.float32).ravel(), values, directions


def _fit_principal(rows: Float[np.ndarray, "N E"] | Sparse, config: Config) -> Arrays:
    """The leading principal directions of the centred vectors: `text.components`, or where that is 0 `model.width`.

    Zeros fill up vectors of fewer dimensions.
    """
    width = config.text.components or config.model.width
    mean, _, directions = _directions(rows, width)
    directions = directions[:, :width]
    return {"mean": mean, "matrix": np.pad(directions, ((0, 0), (0, width - directions.shape[1])))}


def whiten(rows: Float[np.ndarray, "N E"] | Sparse, exponent: float, components: int = 0) -> Transform:
    """Principal directions, each divided by its standard deviation to the power `exponent`; rows of length 1.

    All directions that the vectors have, up to `components` where that is not 0, as it must not be for sparse rows;
    those of float32's rounding are none.
    """
    mean, variances, directions = _directions(rows, components)
    deviation = np.sqrt(np.maximum(variances, 0))
    rank = int((deviation > deviation[0] * len(deviation) * np.finfo(np.float32).eps).sum())
    kept = slice(0, min(rank, components or rank) or 1)
    scale = np.where(deviation[kept] > 0, deviation[kept], 1) ** exponent
    return Transform("whiten", {"mean": mean, "matrix": (directions[:, kept] / scale).astype(directions.dtype)})


def _fit_whiten(rows: Float[np.ndarray, "N E"] | Sparse, config: Config) -> Arrays:
    components = config.text.components or (config.model.width if scipy.sparse.issparse(rows) else 0)
    return whiten(rows, config.text.exponent, components).arrays


def _principal(arrays: Arrays, rows: Float[np.ndarray, "n E"] | Sparse) -> Float[np.ndarray, "n D"]:
    """Each row scaled to length 1."""
    if scipy.sparse.issparse(rows):
        turned = rows @ arrays["matrix"] - arrays["mean"] @ arrays["matrix"]
    else:
        turned = (rows.astype(np.float64) - arrays["mean"]) @ arrays["matrix"]
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    return (turned / np.where(length > 0, length, 1)).astype(np.float32)


TRANSFORMS.register("none", TextTransform(lambda rows, config: {}, lambda arrays, rows: rows))
TRANSFORMS.register("standardize", TextTransform(_fit_standardize, _standardize))
TRANSFORMS.register("principal", TextTransform(_fit_principal, _principal, sparse=True))
TRANSFORMS.register("whiten", TextTransform(_fit_whiten, _principal, sparse=True))
