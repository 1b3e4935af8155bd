"""Routing, no LLM: users whom a finished run serves badly get the lists of another scorer.

python -m pad_jax.studies.allocate WORKDIR --scorer NAME [--to WORKDIR]

Hybrid task allocation (2405.00824) hands weak users to a language model: those with few events for whom the recommender
ranks badly. Here any scorer takes them whose ranks a run has kept: a phase of another run (--to), or a baseline as
counts_whitened_words. A user is weak who has met at most H items and whose validation target stands at rank R or
behind it. Differs: the original writes the lists of weak users by prompts, and takes AUC where this takes the rank.

H and R are chosen among deciles for the highest nDCG@10 on the test targets of one half of the users and judged on the
other half, both ways: R is made from validation targets, so these cannot choose it.
"""

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from pad_jax import boundary
from pad_jax.console import show
from pad_jax.data.dataset import HISTORY_GROUPS, frequency_group
from pad_jax.errors import UserError
from pad_jax.evaluation.metrics import ndcg
from pad_jax.evaluation.significance import bootstrap_interval
from pad_jax.registry import one_of
from pad_jax.report.markdown import row
from pad_jax.workdir.identity import read_config
from pad_jax.workdir.results import read_ranks, read_results

DECILES = np.linspace(0, 1, 11)


class Users(NamedTuple):
    """What is known of each user: the metric under the run and under the scorer that takes over, and two features."""

    own: Float[np.ndarray, " U"]
    other: Float[np.ndarray, " U"]
    met: Float[np.ndarray, " U"]  # items before the target
    rank: Float[np.ndarray, " U"]  # of the validation target under the run

    def of(self, mask: Bool[np.ndarray, " U"]) -> "Users":
        return Users(*(x[mask] for x in self))


class Rule(NamedTuple):
    """Whom to call weak: who has met at most `met` items and whose validation target stands at `rank` or behind."""

    met: float
    rank: float

    def weak(self, users: Users) -> Bool[np.ndarray, " U"]:
        return (users.met <= self.met) & (users.rank >= self.rank)


def choose(users: Users) -> Rule:
    """The rule of deciles with the highest mean of the metric; of equal ones that with the fewest weak users."""
    nobody = Rule(0.0, np.inf)
    rules = [Rule(*found) for found in product(*(np.quantile(x, DECILES).tolist() for x in users[2:]))]

    def worth(rule: Rule) -> tuple[float, int]:
        weak = rule.weak(users)
        return float(np.where(weak, users.other, users.own).sum()), -int(weak.sum())

    return max([nobody, *rules], key=worth)


def route(users: Users, seed: int = 0) -> tuple[Bool[np.ndarray, " U"], list[Rule]]:
    """Who is weak by the rule that the other half of the users has chosen, and the rule for each half."""
    half = np.random.default_rng(seed).permutation(len(users.own)) % 2 == 1
    rules = [choose(users.of(~half)), choose(users.of(half))]
    return np.where(half, rules[0].weak(users), rules[1].weak(users)), rules


def report(run: Path, scorer: str, to: Path) -> str:
    """Markdown. Raises UserError where the two cannot be put together."""
    configs = [read_config(path) for path in (run, to)]
    if configs[0]["dataset_sha256"] != configs[1]["dataset_sha256"]:
        raise UserError(f"{run} and {to} were made from different data; users cannot be routed between them")
    if configs[0]["config"].get("data.time"):
        raise UserError(
            f"{run} is split by time, where users of validation and test differ: routing needs leave-one-out"
        )
    phases = read_results(run, configs[0]["of"]).get("phases")
    ours, theirs = (read_ranks(path, c["of"]) for path, c in zip((run, to), configs, strict=True))
    if not phases or "test/items_met" not in ours:
        raise UserError(f"{run} holds no finished run with the lengths of histories; run the job `evaluate` there")
    name = list(phases)[-1]
    known = [n.removeprefix("test/") for n in theirs if n.startswith("test/") and n not in NO_RANKS]
    if scorer not in known:
        raise UserError(f"--scorer={scorer}: {to} has no such ranks, but {one_of(scorer, known)}")
    own, other = (ndcg(r, 10) for r in (ours[f"test/{name}"], theirs[f"test/{scorer}"]))
    users = Users(own, other, ours["test/items_met"], ours[f"valid/{name}"])
    weak, rules = route(users)
    shown = {"run": own, "scorer": other, "routed": np.where(weak, other, own), "oracle": np.maximum(own, other)}
    mean, low, high = (100 * x for x in bootstrap_interval(shown["routed"] - own))
    listed = " and ".join(f"at most {rule.met:g} items and rank {rule.rank:g} or behind" for rule in rules)
    groups = {"all": np.ones(len(own), bool)} | frequency_group(users.met, HISTORY_GROUPS)
    groups |= {"weak": weak, **frequency_group(ours["test/target_count"])}
    titles = [f"{group} ({mask.sum():,})" for group, mask in groups.items()]
    lines = [f"Routing, no LLM: nDCG@10 in percent, test split of {configs[0]['config']['dataset']}", ""]
    lines += [row(["", *titles]), "| --- |" + " ---: |" * len(titles)]
    labels = {
        "run": f"{run.name}, {name}",
        "scorer": scorer,
        "routed": "routed",
        "oracle": "the better of both, by user",
    }
    for what, values in shown.items():
        cells = [f"{100 * values[mask].mean():.2f}" if mask.any() else "-" for mask in groups.values()]
        lines.append(row([labels[what], *cells]))
    lines += [
        "",
        f"Weak, by the rules of the two halves: {listed}; {100 * weak.mean():.1f} % of the users. Routed minus",
    ]
    lines[-1] += f" run: {mean:+.2f} points, 95 % bootstrap interval over users [{low:+.2f}, {high:+.2f}]."
    return "\n".join(lines)


NO_RANKS = ("test/target_count", "test/items_met")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pad_jax.studies.allocate", description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--scorer", required=True, help="a phase or a baseline that takes the weak users")
    parser.add_argument("--to", type=Path, help="the run that has its ranks; without it WORKDIR")
    arguments = parser.parse_args(argv)
    return boundary.run(lambda: show(report(arguments.workdir, arguments.scorer, arguments.to or arguments.workdir)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
