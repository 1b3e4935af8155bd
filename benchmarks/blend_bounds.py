"""What bounds `blend`: what other shares of its experts would do to users of warm, median, cold and unseen items.

    python -m benchmarks.blend_bounds DATASET WORKDIR [--words N]

Of a finished run, nDCG@10 in percent on both splits. Beside the gate as it is stand each expert alone and what is best
where the shares of the experts are multiplied by 0, 1/4, 1/2, 1, 2 or 4 each: for all users, for all of them without
one expert, for every group alike, and for each group by itself. A group has 100 users at least. Whatever is best is
chosen on validation, and its shares are shown. Two rows know what nobody can: which group the next item belongs to,
and which expert is the best one for a user. `--words` takes other directions of the words than the run has; neither
training nor gate are made anew for them.
"""

import argparse
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Report, run
from pad_jax.cli import parse
from pad_jax.data.dataset import frequency_group
from pad_jax.errors import UserError
from pad_jax.evaluation.metrics import ndcg
from pad_jax.evaluation.ranking import ranker
from pad_jax.pipeline import Run
from pad_jax.settings import with_fields
from pad_jax.workdir.identity import settings_of

EXPERTS = ("learned", "followers", "words")
FACTORS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
LEAST_USERS = 100
AS_IS, ALONE = (1.0, 1.0, 1.0), tuple(map(tuple, np.eye(3)))


def grid() -> list[tuple[float, ...]]:
    """Factors of the three shares, one of each ratio: the last that is not 0 is 1."""
    return [f for f in product(FACTORS, repeat=3) if any(f) and next(x for x in reversed(f) if x) == 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="as --config of main.py names it")
    parser.add_argument("workdir", type=Path, help="of a finished run of blend")
    parser.add_argument("--words", type=int, metavar="N", help="blend.words in place of the run's")
    options = parser.parse_args()
    config = parse(["main.py", f"--config={options.dataset}"]).config
    job = Run(settings_of(options.workdir, config, ()), options.workdir, str)
    if job.config.method != "blend" or not job.is_finished:
        raise UserError(f"{options.workdir} is no finished run of blend: train one with --config.method=blend")
    with Report("blend_bounds", ("split", "what", *EXPERTS, "all", "warm", "median", "cold", "unseen")) as report:
        table(report, job, job.config.blend.words if options.words is None else options.words)


def table(report: Report, job: Run, words: int) -> None:
    """Fills the report for a finished run, with so many directions of words."""
    phase, other = job.method.phases[-1], Run(with_fields(job.config, {"blend.words": words}), None, str)
    params, rank = job.best(phase), ranker(phase.scorer(other.config), job.config.eval.batch)

    @cache
    def gains(split: str, factors: tuple[float, ...]) -> np.ndarray:
        """nDCG@10 of every user, in percent."""
        shares = params["gate"]["shares"] + jnp.log(jnp.asarray(factors, jnp.float32))
        changed = {**params, "gate": {**params["gate"], "shares": shares}}
        return 100 * ndcg(rank(changed, other.data, job.splits[split]), 10)

    groups = {split: frequency_group(job.dataset.counts[part.target]) for split, part in job.splits.items()}
    large = [name for name, users in groups["valid"].items() if users.sum() >= LEAST_USERS]

    def mean(name: str) -> Callable[[tuple[float, ...]], float]:
        """On validation, of a group or of all."""
        return lambda f: gains("valid", f)[groups["valid"].get(name, slice(None))].mean()

    points = grid()
    best = {name: max(points, key=mean(name)) for name in ("all", *large)}
    rows = {"the gate": AS_IS} | {f"{e} alone": f for e, f in zip(EXPERTS, ALONE, strict=True)}
    rows["best for all"] = best["all"]
    for k, expert in enumerate(EXPERTS):
        rows[f"..without {expert}"] = max((f for f in points if not f[k]), key=mean("all"))
    rows["best for all groups alike"] = max(points, key=lambda f: sum(mean(name)(f) for name in large))
    rows |= {f"best for {name}": best[name] for name in large}
    for split, of in groups.items():
        known = gains(split, best["all"]).copy()
        for name in large:
            known[of[name]] = gains(split, best[name])[of[name]]
        lines = [(what, factors, gains(split, factors)) for what, factors in rows.items()]
        lines += [("group known", None, known)]
        lines += [("best expert known", None, np.max([gains(split, f) for f in ALONE], axis=0))]
        for what, factors, values in lines:
            parts = {name: float(values[users].mean()) for name, users in of.items() if users.any()}
            shares = dict(zip(EXPERTS, factors, strict=True)) if factors else {}
            report.add(split=split, what=what, **shares, all=float(values.mean()), **parts)


if __name__ == "__main__":
    run(main)
