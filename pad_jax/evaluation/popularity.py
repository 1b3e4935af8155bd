"""The popularity dial, score + beta * log(1 + training count of the item), and what a scorer does as it is turned.

Every scorer trades warm items against cold ones, and one beta shows one point of that. `GRID` are the betas of the
curve, in units that fit the scorer: (median over users of the standard deviation of a user's scores over all items) /
(standard deviation of log(1 + count) over all items).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pad_jax.data.dataset import Split, frequency_group, without_targets
from pad_jax.errors import UserError
from pad_jax.evaluation.metrics import of_ranks

#: At 4 units every scorer that was measured on Prime Pantry has lost, at 2 those of dense scores, on either side.
GRID = (-4.0, -2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
SHOWN = ("HR@10", "nDCG@10")  # of every point of a curve
_SAMPLE = 1024  # users whose scores set the unit


def offset(beta: float | Sequence[float] | np.ndarray, counts: Int[np.ndarray, " I"]) -> Float[np.ndarray, "*G I"]:
    """What is added to the score of each item, under one beta or each of several: beta * log(1 + count)."""
    return np.asarray(beta, np.float32)[..., None] * np.log1p(counts.astype(np.float32))


def sample(split: Split) -> Split:
    """Users of a split, evenly spread and without targets, whose scores set the unit."""
    some = np.unique(np.linspace(0, len(split.target) - 1, _SAMPLE).astype(int))
    return without_targets(split.inputs[some])


def betas(
    deviation: Float[np.ndarray, " S"], counts: Int[np.ndarray, " I"], grid: Sequence[float] = GRID
) -> tuple[float, ...]:
    """`grid` in the units of a scorer, with four digits; 0 alone where no unit can be told.

    `deviation` is the standard deviation of each user's scores over all items; 0, all scores alike, takes no part.
    """
    told = deviation[np.isfinite(deviation) & (deviation > 0)]
    if not len(told) or (counts[1:] == counts[1]).all():
        return (0.0,)
    unit = float(np.median(told) / np.log1p(counts[1:]).std())
    return tuple(float(f"{times * unit:.4g}") for times in grid)


def curve(
    found: Iterable[tuple[float, Float[np.ndarray, " U"]]],
    target: Int[np.ndarray, " U"],
    counts: Int[np.ndarray, " I"],
    names: Iterable[str] = SHOWN,
) -> list[dict[str, Any]]:
    """Metrics of ranks under each beta, of all users and by training count of the target, as `results.json` has them.

    Args:
        found: each beta, and the rank of every user's target under it.
        target: item numbers.
        counts: training events of each item.
        names: of metrics of ranks.
    """
    groups, names = frequency_group(counts[target]), tuple(dict.fromkeys(names))

    def metrics(ranks: Float[np.ndarray, " V"]) -> dict[str, float | None]:
        return {name: of_ranks(name, ranks, len(counts) - 1) for name in names}

    return [
        {
            "beta": beta,
            **metrics(ranks),
            "by_frequency": {name: metrics(ranks[users]) for name, users in groups.items()},
        }
        for beta, ranks in found
    ]


def chosen(asked: float | str, points: Sequence[Mapping[str, Any]], select: str) -> float:
    """The beta that `eval.popularity` means: itself, or for `valid` that of the best point of a validation curve.

    Of equally good ones the nearest to 0. Raises UserError where there is no curve to choose from.
    """
    if asked != "valid":
        return float(asked)
    if not points or select not in points[0]:
        raise UserError("config.eval.popularity=valid needs the curve over it, which the job `evaluate` makes")
    return max(points, key=lambda point: (point[select], -abs(point["beta"])))["beta"]


def asked(phase: Mapping[str, Any]) -> float | str:
    """The `eval.popularity` that the results of a phase are of; earlier versions had none."""
    return phase.get("popularity", {"asked": 0.0})["asked"]


def beta_of(phase: Mapping[str, Any]) -> float:
    """The beta that the results of a phase are of."""
    return phase.get("popularity", {"beta": 0.0})["beta"]
