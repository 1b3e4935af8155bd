"""HR, nDCG, MRR and own metrics from ranks, for all users and by how often training met the target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pad_jax.data.dataset import frequency_group
from pad_jax.errors import UserError
from pad_jax.registry import SECTIONS, Registry
from pad_jax.settings import Config, check_choice, setting


class Metric(NamedTuple):
    """A metric of the rank of every user's target (1 is first, ties share the mean rank).

    `value(ranks, k)` gives a number per user, whose mean is reported as NAME@k for each k of `eval.ks`, or with
    `at_k=False` as NAME, k being the number of items then.
    """

    value: Callable[[Float[np.ndarray, " U"], int], Float[np.ndarray, " U"]]
    at_k: bool = True


METRICS: Registry[Metric] = Registry("metric", configurable=False)


def hit_ratio(ranks: Float[np.ndarray, " U"], k: int) -> Float[np.ndarray, " U"]:
    """1 where rank <= k, per user."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: Float[np.ndarray, " U"], k: int) -> Float[np.ndarray, " U"]:
    """1 / log2(rank + 1) where rank <= k, per user: one relevant item, so the ideal gain is 1."""
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


METRICS.register("HR", Metric(hit_ratio))
METRICS.register("nDCG", Metric(ndcg))
METRICS.register("MRR", Metric(lambda ranks, _: 1 / ranks, at_k=False))


@dataclass(frozen=True)
class EvalSettings:
    ks: tuple[int, ...] = setting((1, 5, 10, 20, 50), "cut-offs of metrics; 10 is always among them", least=1)
    batch: int = setting(256, "users ranked at once on each device", least=1)

    def check(self, config: Config) -> None:
        if 10 not in self.ks:
            raise UserError(f"config.eval.ks must have 10 among them, not {self.ks}")
        check_choice("train.select", config.train.select, names(self.ks))


SECTIONS.register("eval", EvalSettings)


def names(ks: Sequence[int]) -> list[str]:
    """Of all metrics, as results have them."""
    return [n for name, metric in METRICS.items() for n in ([f"{name}@{k}" for k in ks] if metric.at_k else [name])]


def summarize(
    ranks: Float[np.ndarray, " U"],
    target_counts: Int[np.ndarray, " U"],
    target_buckets: Int[np.ndarray, " U"],
    ks: Sequence[int],
    buckets: int,
    items: int,
) -> dict[str, Any]:
    """Metrics as `results.json` holds them; a group without users has null metrics.

    Args:
        ranks: of every user's target.
        target_counts: how often training met it.
        target_buckets: its frequency bucket.
        ks: cut-offs.
        buckets: how many buckets there are.
        items: N.
    """
    groups = frequency_group(target_counts)
    return {
        **_metrics(ranks, ks, items),
        "by_frequency": {name: _metrics(ranks[mask], ks, items) for name, mask in groups.items()},
        "by_bucket": [_metrics(ranks[target_buckets == bucket], ks, items) for bucket in range(1, buckets + 1)],
    }


def _metrics(ranks: Float[np.ndarray, " U"], ks: Sequence[int], items: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (value, at_k) in METRICS.items():
        for k in ks if at_k else (items,):
            values = np.asarray(value(ranks, k))
            if values.shape != ranks.shape:
                raise UserError(
                    f"the metric {name!r} must give a number for each of {len(ranks)} users, not {values.shape}"
                )
            found[f"{name}@{k}" if at_k else name] = float(values.mean()) if len(ranks) else None
    return found | {"users": len(ranks)}
