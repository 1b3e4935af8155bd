"""What text vectors go through before training reads them: fitted to the items, and applied to new ones alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from pad_jax.registry import Registry
from pad_jax.settings import Config

_ROWS = 1 << 14  # that are transformed at once
Arrays = Mapping[str, Num[np.ndarray, "..."]]


class TextTransform(NamedTuple):
    """A kind of transform.

    `fit(rows, config)` makes the arrays that `apply(arrays, rows)` needs: rows [N, E] of the items, and rows [n, E] of
    any items; `apply` gives each row by itself.
    """

    fit: Callable[[Float[np.ndarray, "N E"], Config], Arrays]
    apply: Callable[[Arrays, Float[np.ndarray, "n E"]], Float[np.ndarray, "n _"]]


@dataclass(frozen=True)
class Transform:
    """A fitted transform, a function of rows."""

    kind: str
    arrays: Arrays = field(default_factory=dict)

    def __call__(self, rows: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N _"]:
        apply = TRANSFORMS[self.kind].apply
        if not self.arrays:
            return apply(self.arrays, rows)
        parts = [apply(self.arrays, rows[n : n + _ROWS]) for n in range(0, len(rows), _ROWS)]
        return np.concatenate(parts) if parts else apply(self.arrays, rows)


def fit(rows: Float[np.ndarray, "N E"], config: Config) -> Transform:
    """The transform `text.transform` for the items' vectors; others, of new items, then go through the same one.

    Embedding spaces of language models are narrow cones: without centring, differences between items are small
    beside what all items share.
    """
    return Transform(config.text.transform, TRANSFORMS[config.text.transform].fit(rows, config))


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


def _directions(rows: Float[np.ndarray, "N E"]) -> tuple[Any, Any, Any]:
    """Mean [E], variances [E] along the principal directions, the largest first, and these, the columns of [E, E]."""
    mean = _mean(rows)
    values, directions = np.linalg.eigh(sum(x.T @ x for x in _centred(rows, mean)))
    order = np.argsort(-values)
    directions = directions[:, order]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    return mean, values[order] / len(rows), directions * np.where(largest < 0, -1, 1)


def _fit_principal(rows: Float[np.ndarray, "N E"], config: Config) -> Arrays:
    """The leading principal directions of the centred vectors: `text.components`, or where that is 0 `model.width`.

    Zeros fill up vectors of fewer dimensions.
    """
    width = config.text.components or config.model.width
    mean, _, directions = _directions(rows)
    directions = directions[:, :width]
    return {"mean": mean, "matrix": np.pad(directions, ((0, 0), (0, width - directions.shape[1])))}


def whiten(rows: Float[np.ndarray, "N E"], exponent: float, components: int = 0) -> Transform:
    """Principal directions, each divided by its standard deviation to the power `exponent`; rows of length 1.

    All directions that the vectors have, up to `components` where that is not 0; those of float32's rounding are none.
    """
    mean, variances, directions = _directions(rows)
    deviation = np.sqrt(np.maximum(variances, 0))
    rank = int((deviation > deviation[0] * len(deviation) * np.finfo(np.float32).eps).sum())
    kept = slice(0, min(rank, components or rank) or 1)
    scale = np.where(deviation[kept] > 0, deviation[kept], 1) ** exponent
    return Transform("whiten", {"mean": mean, "matrix": directions[:, kept] / scale})


def _fit_whiten(rows: Float[np.ndarray, "N E"], config: Config) -> Arrays:
    return whiten(rows, config.text.exponent, config.text.components).arrays


def _principal(arrays: Arrays, rows: Float[np.ndarray, "n E"]) -> Float[np.ndarray, "n D"]:
    """Each row scaled to length 1."""
    turned = (rows.astype(np.float64) - arrays["mean"]) @ arrays["matrix"]
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    return (turned / np.where(length > 0, length, 1)).astype(np.float32)


TRANSFORMS.register("none", TextTransform(lambda rows, config: {}, lambda arrays, rows: rows))
TRANSFORMS.register("standardize", TextTransform(_fit_standardize, _standardize))
TRANSFORMS.register("principal", TextTransform(_fit_principal, _principal))
TRANSFORMS.register("whiten", TextTransform(_fit_whiten, _principal))
