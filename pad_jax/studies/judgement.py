"""What a page over several datasets begins with: the questions of docs/protocol.md, judged as it says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from pad_jax.console import say
from pad_jax.data.dataset import frequency_group
from pad_jax.evaluation.metrics import ndcg
from pad_jax.evaluation.significance import RESAMPLES, Effect, effect, group_regret, holm
from pad_jax.report.groups import Lengths, RunGroup, differ_by_minutes, paired
from pad_jax.report.page import Page
from pad_jax.report.table import LABELS, percent, shown
from pad_jax.settings import Config
from pad_jax.studies.claims import over, points
from pad_jax.studies.study import Row, Study, chance, gain, seeds_in_words, unfinished

HOLDS, FAILS, OPEN = "holds", "**does not hold**", "not settled"
EXCLUDED = "an effect of the paper's size is excluded"
UNTESTED = "cannot be tested under this recipe"
CUT = "cannot be tested: minutes ended a run"
LEVEL = 0.05
LEAST_USERS = 100  # of a group that is compared by itself
TRIALS = "docs/protocol.md has it, under Choices (docs/protocol.md#choices)"
#: The paper's gains of PAD over a method in nDCG@10 (Table 2), by dataset and method.
PAPER = {("mind", "smem"): 0.0151, ("electronics", "smem"): 0.0760, ("pantry", "smem"): 0.0954}


class Comparison(NamedTuple):
    """That one row of a dataset is above another for some users.

    `paper` is the paper's relative gain, 0 for none; `cut` says that a clock decided how long the two were trained.
    """

    dataset: str
    upper: str
    lower: str
    users: str
    size: int
    found: Effect
    base: float  # nDCG@10 of `lower`
    paper: float = 0.0
    cut: bool = False


@dataclass(frozen=True)
class Measured:
    """nDCG@10 of every user's test target on a dataset, by the names of rows and the seeds."""

    dataset: str
    rows: Mapping[str, Mapping[int, Float[np.ndarray, " U"]]]
    unlearned: Mapping[str, float]  # rows without training, and their nDCG@10 on validation
    known: Mapping[str, str]  # what the questions are about, and the names of these rows
    groups: Mapping[str, Bool[np.ndarray, " U"]]
    lengths: Mapping[str, Lengths] = field(default_factory=dict)  # of every row that is trained

    @property
    def best_unlearned(self) -> str:
        """The row without training that is best on validation, an empty string without one."""
        return max(self.unlearned, key=lambda name: self.unlearned[name], default="")

    @property
    def large(self) -> dict[str, Bool[np.ndarray, " U"]]:
        """The groups that are compared by themselves."""
        return {name: users for name, users in self.groups.items() if users.sum() >= LEAST_USERS}

    def regrets(self) -> dict[str, tuple[float, float, float]]:
        """The group regret of every row over the large groups, and its interval."""
        rows = {name: np.array(list(values.values())) for name, values in self.rows.items()}
        return group_regret(rows, list(self.large.values()))

    def compare(self, upper: str, lower: str, users: str = "all", paper: float = 0.0) -> Comparison:
        """Two rows for all users, or for those of a group."""
        chosen = self.groups.get(users, np.ones(len(next(iter(self.rows[lower].values()))), bool))
        found = effect(paired(self.rows[upper], self.rows[lower])[:, chosen])
        base = float(np.mean([values[chosen] for values in self.rows[lower].values()]))
        cut = differ_by_minutes(self.lengths.get(upper, {}), self.lengths.get(lower, {}))
        return Comparison(self.dataset, upper, lower, users, int(chosen.sum()), found, base, paper, cut)

    def alignment(self) -> list[Comparison]:
        """Question 1: PAD with its MMD against PAD without, for all users and for those with a cold target."""
        if not {"pad", "without MMD"} <= set(self.known):
            return []
        cold = ["cold"] if self.groups["cold"].any() else []
        return [self.compare(self.known["pad"], self.known["without MMD"], users) for users in ("all", *cold)]

    def ended_by_minutes(self) -> str:
        """The rows and phases that did not come to their end, with the epochs of each seed; empty for none."""
        return "; ".join(
            f"{shown(row)}, {phase}: {', '.join(str(epochs) if cut else f'({epochs})' for epochs, cut in found)}"
            for row, phases in self.lengths.items()
            for phase, found in phases.items()
            if any(cut for _, cut in found)
        )

    def pad(self) -> list[Comparison]:
        """Question 2: PAD against what it is built from and against counting."""
        if "pad" not in self.known:
            return []
        rivals = {name: self.known[name] for name in ("sasrec", "smem") if name in self.known}
        rivals |= {"": self.best_unlearned} if self.unlearned else {}
        papers = {name: PAPER.get((self.dataset, name), 0.0) for name in rivals}
        return [self.compare(self.known["pad"], row, paper=papers[name]) for name, row in rivals.items()]

    def blend(self) -> list[Comparison]:
        """Question 3: blend against every row, and by group against IDs alone and the rows without training."""
        if "blend" not in self.known:
            return []
        blend = self.known["blend"]
        simple = [self.known["sasrec"], *self.unlearned] if "sasrec" in self.known else list(self.unlearned)
        overall = [self.compare(blend, name) for name in self.rows if name != blend]
        return overall + [self.compare(blend, name, users) for users in self.large for name in simple]


def measured(study: Study) -> Measured:
    """The finished rows of a study, and those without training, whose ranks stand beside each run's own."""
    seeds = study.config.study.seeds
    groups = {row.name: study.group(row) for row in study.rows}
    rows: dict[str, Mapping[int, np.ndarray]] = {name: group.by_seed("nDCG@10") for name, group in groups.items()}
    unlearned: dict[str, float] = {}
    for group in groups.values():
        for name, metrics in group.results[0]["baselines"].items():
            if metrics is not None and LABELS[name] not in rows:
                values = ndcg(group.ranks(group.paths[0], name), 10)
                rows[LABELS[name]] = dict.fromkeys(seeds, values)
                unlearned[LABELS[name]] = metrics["valid"]["nDCG@10"] or 0.0
    counts = RunGroup.ranks(study.path(study.rows[0], seeds[0]), "target_count").astype(int)
    lengths = {name: group.lengths for name, group in groups.items()}
    return Measured(study.config.dataset, rows, unlearned, known_rows(study.rows), frequency_group(counts), lengths)


def known_rows(rows: Iterable[Row]) -> dict[str, str]:
    """The names of the rows that the questions are about, by what these are."""
    found: dict[str, str] = {}
    for row in rows:
        if row.method != "pad" or not row.fields:
            found.setdefault(row.method, row.name)
        elif row.fields == {"mmd.weight": 0.0}:
            found["without MMD"] = row.name
    return found


def verdict(found: Effect, p: float, bar: float = 0.0) -> str:
    """The class of a claim; `p` is corrected, `bar` the difference that the paper's gain would be, 0 for none."""
    if p < LEVEL:
        return HOLDS if found.mean > 0 else FAILS
    return f"{OPEN}; {EXCLUDED}" if bar and found.high < bar else OPEN


def front(studies: Sequence[Study]) -> Page:
    """The page's head: three questions over all datasets, and the group regret of every row."""
    config = studies[0].config
    names, seeds = ", ".join(study.config.dataset for study in studies), config.study.seeds
    page = Page(f"{config.job} on {names}: loss {config.loss}, recipe {config.recipe}")
    page.text(
        f"Every dataset has a part of its own below; all have the same settings but for the data, and "
        f"{seeds_in_words(seeds)}. The number of trials behind each chosen setting: {config.study.trials or TRIALS}."
    )
    if missing := unfinished(studies):
        page.text(missing)
    say("\ncomparing rows")
    all_measured = [measured(study) for study in studies if study.rows]
    best = "; ".join(f"{m.dataset}: {m.best_unlearned or '-'}" for m in all_measured)
    page.heading("Judgement")
    page.text(
        "Differences are of each user's nDCG@10 on test under the same seed, in points. The 95 % interval is a "
        f"percentile bootstrap that draws {over(len(seeds))} with replacement, {RESAMPLES:,} times; p is twice the "
        f"smaller share of draws at or beyond zero, and at least 1/{RESAMPLES:,}, and 2^(1 - n) where n users differ "
        "between the two rows under any seed. Holm's correction is over all datasets and both groups of users "
        "in question 1, and over all comparisons of a dataset in questions 2 and 3 together. `found from` is the "
        "smallest difference that a test of this claim alone would have found with a chance of 80 % (2.8 standard "
        f"errors). A claim holds where the corrected p is below {LEVEL} and the difference has its sign, and does not "
        "hold where it has the other. The best row without training is chosen by nDCG@10 on validation "
        f"({best}); the shares of `blend` are fitted to validation events."
    )
    for m in all_measured:
        if ended := m.ended_by_minutes():
            page.text(
                f"Ended by their minutes, and not by their patience or epochs, on {m.dataset} (epochs of each seed, in "
                f"brackets where it came to its end): {ended}. How far such a run came is also a matter of its machine "
                "and of what else ran there; it is not judged beside a row that has such a phase at another length, or "
                "not at all."
            )
    first = [c for m in all_measured if has_mmd(config) for c in m.alignment()]
    second = [c for m in all_measured for c in m.pad()]
    third = [c for m in all_measured for c in m.blend()]
    corrected = dict(zip(map(id, first), holm([c.found.p for c in first]), strict=True))
    for m in all_measured:
        family = [c for c in (*second, *third) if c.dataset == m.dataset]
        corrected |= zip(map(id, family), holm([c.found.p for c in family]), strict=True)
    question(page, "1. Does alignment help?", first, corrected, "" if has_mmd(config) else UNTESTED)
    question(page, "2. Does PAD beat what it is built from and counting?", second, corrected)
    question(page, "3. Does blend lose anywhere?", third, corrected)
    regret_table(page, all_measured)
    return page


def has_mmd(config: Config) -> bool:
    """Whether PAD aligns by MMD, so that leaving it out is another model."""
    return config.alignment.loss == "mmd" and config.mmd.weight > 0


def question(
    page: Page, title: str, comparisons: Sequence[Comparison], corrected: Mapping[int, float], untested: str = ""
) -> None:
    """A table of comparisons, and how often each verdict fell on each dataset.

    Args:
        page: that it is put on.
        title: the question.
        comparisons: of all datasets.
        corrected: their corrected p, by their identity.
        untested: why none can be made; empty where they can.
    """
    page.heading(title)
    if not comparisons:
        page.text(f"{untested or 'Not run: the rows of this question are not among those of the study'}.")
        return
    rows, fell = [], dict[str, dict[str, int]]()
    for c in comparisons:
        p = corrected[id(c)]
        said = CUT if c.cut else verdict(c.found, p, c.paper * c.base)
        count = fell.setdefault(c.dataset, {})
        count[said] = count.get(said, 0) + 1
        difference = points((100 * c.found.mean, 100 * c.found.low, 100 * c.found.high))
        relative = percent(gain(c.base + c.found.mean, c.base))
        least = f"{100 * c.found.least:.2f}"
        claim = f"{shown(c.upper)} above {shown(c.lower)}"
        cells = [difference, relative, chance(c.found.p), chance(p), least, said]
        rows.append([c.dataset, claim, f"{c.users} ({c.size:,})", f"{c.found.differ:,}", *cells])
    for dataset, count in fell.items():
        page.text(f"{dataset}: " + ", ".join(f"{said} {n}" for said, n in count.items()) + ".")
    titles = ["dataset", "claim", "users", "differ", "difference", "relative", "p", "p, Holm", "found from", ""]
    page.table(titles, rows, words=True)


def regret_table(page: Page, datasets: Sequence[Measured]) -> None:
    """The group regret of every row on every dataset."""
    page.heading("Group regret")
    listed = "; ".join(f"{m.dataset}: {', '.join(m.large) or 'none'}" for m in datasets)
    page.text(
        "The mean over groups of users of (best row of the page - own) / best row, in percent, of each row's mean "
        "nDCG@10 over seeds: 0 is the best row of every group. The 95 % interval is a percentile bootstrap over the "
        "users of each group and over seeds, with the best row of each draw. "
        f"Groups of at least {LEAST_USERS} users: {listed}."
    )
    found = {m.dataset: m.regrets() for m in datasets}
    names = dict.fromkeys(name for regrets in found.values() for name in regrets)
    nothing = (float("nan"),) * 3
    page.table(
        ["", *found], [[shown(n), *(_interval(regrets.get(n, nothing)) for regrets in found.values())] for n in names]
    )


def _interval(found: tuple[float, float, float]) -> str:
    """In percent; `-` for none."""
    return "-" if np.isnan(found[0]) else "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * x for x in found))
