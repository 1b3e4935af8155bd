"""What text vectors go through before training reads them: fitted to the items, and applied to new ones alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from pad_jax.registry import Registry

_ROWS = 1 << 14  # that are transformed at once
Arrays = Mapping[str, Num[np.ndarray, "..."]]


class TextTransform(NamedTuple):
    """A kind of transform.

    `fit(rows, width)` makes the arrays that `apply(arrays, rows)` needs: rows [N, E] of the items, `model.width`, and
    rows [n, E] of any items; `apply` gives each row by itself.
    """

    fit: Callable[[Float[np.ndarray, "N E"], int], Arrays]
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


def fit(rows: Float[np.ndarray, "N E"], kind: str, width: int) -> Transform:
    """The transform of `kind` for the items' vectors; others, of new items, then go through the same one.

    Embedding spaces of language models are narrow cones: without centring, differences between items are small
    beside what all items share.
    """
    return Transform(kind, TRANSFORMS[kind].fit(rows, width))


def unit(rows: Float[np.ndarray, "*N E"]) -> Float[np.ndarray, "*N E"]:
    """Vectors at length 1, zeros as they are, however large or small their values."""
    scaled = np.ldexp(rows, -np.frexp(np.abs(rows).max(axis=-1, keepdims=True))[1])  # squares of these fit
    return scaled / np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), 1e-12)


TRANSFORMS: Registry[TextTransform] = Registry("transform", "text.transform", configurable=False)


def _mean(rows: Float[np.ndarray, "N E"]) -> Float[np.ndarray, " E"]:
    return sum(rows[n : n + _ROWS].sum(axis=0, dtype=np.float64) for n in range(0, len(rows), _ROWS)) / len(rows)


def _centred(rows: Float[np.ndarray, "N E"], mean: Float[np.ndarray, " E"]):
    return (rows[n : n + _ROWS].astype(np.float64) - mean for n in range(0, len(rows), _ROWS))


def _fit_standardize(rows: Float[np.ndarray, "N E"], width: int) -> Arrays:
    """Each dimension centred and scaled to unit variance over the items."""
    mean = _mean(rows)
    deviation = np.sqrt(sum((x**2).sum(axis=0) for x in _centred(rows, mean)) / len(rows))
    return {"mean": mean, "matrix": np.where(deviation > 0, deviation, 1)}


def _standardize(arrays: Arrays, rows: Float[np.ndarray, "n E"]) -> Float[np.ndarray, "n E"]:
    return ((rows.astype(np.float64) - arrays["mean"]) / arrays["matrix"]).astype(np.float32)


def _fit_principal(rows: Float[np.ndarray, "N E"], width: int) -> Arrays:
    """The `width` leading principal directions of the centred vectors; zeros fill up vectors of fewer dimensions."""
    mean = _mean(rows)
    values, directions = np.linalg.eigh(sum(x.T @ x for x in _centred(rows, mean)))
    directions = directions[:, np.argsort(-values)][:, :width]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    directions = directions * np.where(largest < 0, -1, 1)
    return {"mean": mean, "matrix": np.pad(directions, ((0, 0), (0, width - directions.shape[1])))}


def _principal(arrays: Arrays, rows: Float[np.ndarray, "n E"]) -> Float[np.ndarray, "n D"]:
    """Each row scaled to length 1."""
    turned = (rows.astype(np.float64) - arrays["mean"]) @ arrays["matrix"]
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    return (turned / np.where(length > 0, length, 1)).astype(np.float32)


TRANSFORMS.register("none", TextTransform(lambda rows, width: {}, lambda arrays, rows: rows))
TRANSFORMS.register("standardize", TextTransform(_fit_standardize, _standardize))
TRANSFORMS.register("principal", TextTransform(_fit_principal, _principal))
