"""What the paper says beside what was found.

The paper's numbers come from other data and another text encoder, so signs and orders are compared, never sizes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pad_jax.evaluation.significance import effect
from pad_jax.report.groups import RunGroup, differ_by_minutes, paired
from pad_jax.report.page import Page
from pad_jax.report.table import shown

AGREES, DISAGREES, CHANCE, UNTESTED = "agrees", "**does not agree**", "within chance", "cannot be tested here"


class Claim(NamedTuple):
    """A statement of the paper, what was found, and one of the four verdicts."""

    paper: str
    found: str
    verdict: str


def over(seeds: int) -> str:
    """What a bootstrap draws, in words."""
    return "users and seeds" if seeds > 1 else "users (there is one seed)"


def claims_table(page: Page, claims: Sequence[Claim], seeds: int) -> None:
    """A row per claim; `seeds` is how many stand behind each."""
    page.heading("What the paper says, and what was found here")
    page.text(
        "The paper's numbers come from other data and an 8B text encoder, so signs and orders are compared, not sizes. "
        f"A difference agrees when its 95 % bootstrap interval over {over(seeds)} lies above zero, does not agree when "
        f"it lies below, and is within chance otherwise.{'' if seeds > 1 else ' Other seeds differ, too.'}"
    )
    page.table(["paper", "here", ""], [[c.paper, c.found, c.verdict] for c in claims], words=True)


def judged(holds: bool, values: Iterable[float]) -> str:
    """A verdict on numbers without an interval; NaN among `values` cannot be tested."""
    return UNTESTED if np.isnan(list(values)).any() else AGREES if holds else DISAGREES


def cut_by_minutes(one: str, other: str) -> str:
    """Why two rows cannot be compared."""
    return f"minutes ended a run of {one} or of {other}, and left them other epochs"


def above(paper: str, groups: dict[str, RunGroup], upper: Sequence[str], lower: Sequence[str], metric: str) -> Claim:
    """The claim that every group of some is above every one of others; the nearest pair speaks for all.

    Args:
        paper: the statement.
        groups: finished runs by name.
        upper: names of those above.
        lower: names of those below.
        metric: HR@10 or nDCG@10.
    """
    missing = [name for name in (*upper, *lower) if name not in groups]
    if missing:
        return Claim(paper, f"not run: {', '.join(missing)}", UNTESTED)
    for a, b in ((a, b) for a in upper for b in lower):
        if differ_by_minutes(groups[a].lengths, groups[b].lengths):
            return Claim(paper, cut_by_minutes(a, b), UNTESTED)
    values = {name: groups[name].by_seed(metric) for name in (*upper, *lower)}
    found = {(a, b): interval(paired(values[a], values[b])) for a in upper for b in lower}
    a, b = min(found, key=lambda pair: found[pair][0])
    lows, highs = ([x[bound] for x in found.values()] for bound in (1, 2))
    verdict = AGREES if min(lows) > 0 else DISAGREES if min(highs) < 0 else CHANCE
    listed = ", ".join(f"{shown(name)} {100 * np.mean(list(x.values())):.2f}" for name, x in values.items())
    return Claim(paper, f"{metric}: {listed}; {shown(a)} minus {shown(b)}: {points(found[a, b])}", verdict)


def interval(difference: Float[np.ndarray, "S U"]) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval over users and seeds of a difference, in points."""
    found = effect(difference)
    return 100 * found.mean, 100 * found.low, 100 * found.high


def points(found: tuple[float, float, float]) -> str:
    """An interval as people write it."""
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*found)
