"""HR, nDCG, MRR and own metrics from ranks and lists: of all users, by training count of the target, by history."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pad_jax.data.dataset import HISTORY_GROUPS, frequency_buckets, frequency_group
from pad_jax.errors import UserError
from pad_jax.registry import SECTIONS, Registry
from pad_jax.settings import Config, check_choice, setting

if TYPE_CHECKING:
    from pad_jax.evaluation.lists import Lists


class Metric(NamedTuple):
    """A metric of the rank of every user's target (1 is first, ties share the mean rank).

    `value(ranks, k)` gives a number per user, whose mean is reported as NAME@k for each k of `eval.ks`, or with
    `at_k=False` as NAME, k being the number of items then.
    """

    value: Callable[[Float[np.ndarray, " U"], int], Float[np.ndarray, " U"]]
    at_k: bool = True


class ListMetric(NamedTuple):
    """A metric of the first k items of the lists that a phase's best checkpoint makes.

    `value(lists, k)` gives a number per user, whose mean is reported, or one for all lists together, or None where it
    cannot be told. `several` says that it makes sense only where users have several targets (`eval.targets`).
    """

    value: Callable[["Lists", int], Float[np.ndarray, " U"] | float | None]
    several: bool = False


MOST_K = 1000  # of `eval.ks`
METRICS: Registry[Metric | ListMetric] = Registry("metric", configurable=False)


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
    ks: tuple[int, ...] = setting(
        (1, 5, 10, 20, 50), "cut-offs of metrics; 10 is always among them", least=1, below=MOST_K + 1
    )
    batch: int = setting(256, "users ranked at once on each device", least=1, below=2**20)
    targets: str = setting(
        "next",
        "the next event alone, or with `data.time` for recall, precision and MAP all events of the split",
        choices=("next", "all"),
    )

    popularity: float | str = setting(
        0.0,
        "beta in score + beta * log(1 + training count) of ranks and lists, not of early stopping; `valid`: of a grid "
        "of betas the best one on validation",
        "O",
        above=-1e6,
        below=1e6,
        choices=("valid",),
    )
    serve: str = setting("best", "phase that `model/` is of: `best` on validation, `last`, or a phase's name", "O")

    def check(self, config: Config) -> None:
        if self.targets == "all" and not config.data.time:
            raise UserError("config.eval.targets=all needs a split by time: set config.data.time")
        if 10 not in self.ks:
            raise UserError(f"config.eval.ks must have 10 among them, not {self.ks}")
        check_choice("train.select", config.train.select, names(self.ks))


SECTIONS.register("eval", EvalSettings)


def names(ks: Sequence[int]) -> list[str]:
    """Of all metrics of ranks, as results have them."""
    by_rank = [(name, metric) for name, metric in METRICS.items() if isinstance(metric, Metric)]
    return [n for name, metric in by_rank for n in ([f"{name}@{k}" for k in ks] if metric.at_k else [name])]


def summarize(
    config: Config,
    ranks: Float[np.ndarray, " U"],
    target: Int[np.ndarray, " U"],
    counts: Int[np.ndarray, " I"],
    met: Int[np.ndarray, " U"],
    lists: "Lists | None" = None,
) -> dict[str, Any]:
    """Metrics as `results.json` holds them; a group without users has null metrics.

    Args:
        config: of the run.
        ranks: of every user's target.
        target: item numbers.
        counts: training events of each item.
        met: how many items each user has met before.
        lists: of the same users; without them there are no metrics of lists.
    """
    bucket, _ = frequency_buckets(counts, config.data.buckets)

    def metrics(users):
        return _metrics(config, ranks[users], len(counts) - 1, lists and lists.of(users))

    groups = frequency_group(counts[target])
    buckets = (bucket[target] == number for number in range(1, config.data.buckets + 1))
    return {
        **metrics(np.ones(len(ranks), bool)),
        "by_frequency": {name: metrics(users) for name, users in groups.items()},
        "by_bucket": [metrics(users) for users in buckets],
        "by_history": {name: metrics(users) for name, users in frequency_group(met, HISTORY_GROUPS).items()},
    }


def _metrics(config: Config, ranks: Float[np.ndarray, " U"], items: int, lists: "Lists | None") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, metric in METRICS.items():
        if isinstance(metric, ListMetric):
            if lists is None or (metric.several and config.eval.targets != "all"):
                continue
            for k in config.eval.ks:
                found[f"{name}@{k}"] = _mean(name, metric.value(lists, min(k, items)), ranks) if len(ranks) else None
            continue
        for key in (f"{name}@{k}" for k in config.eval.ks) if metric.at_k else (name,):
            found[key] = of_ranks(key, ranks, items)
    return found | {"users": len(ranks)}


def of_ranks(key: str, ranks: Float[np.ndarray, " U"], items: int) -> float | None:
    """The mean of a metric by its name in results, as `nDCG@10` or `MRR`; None without users."""
    name, _, k = key.partition("@")
    metric = METRICS[name]
    assert isinstance(metric, Metric)
    return _mean(name, np.asarray(metric.value(ranks, int(k or items))), ranks) if len(ranks) else None


def _mean(name: str, value: Any, ranks: Float[np.ndarray, " U"]) -> float | None:
    """The mean over users of what a metric gives, or its one number. Raises UserError for anything else."""
    if value is None or isinstance(value, float):
        return value
    if np.shape(value) != ranks.shape:
        raise UserError(f"the metric {name!r} must give a number for each of {len(ranks)} users, not {np.shape(value)}")
    return float(value.mean())
