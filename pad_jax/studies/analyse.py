"""Where PAD gains, and what its phases do to the item tables (paper, Fig. 2, 3, 6 and 7)."""

from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.config import Config
from pad_jax.evaluation.analysis import distances, kendall_tau, pairs_by_bucket, separation, top_and_bottom
from pad_jax.methods.base import Phase
from pad_jax.pipeline import Run
from pad_jax.report.page import Page
from pad_jax.report.table import number
from pad_jax.studies.ablate import PAD
from pad_jax.studies.claims import Claim, claims_table
from pad_jax.studies.study import Row, Study, gain

SASREC = Row("sasrec", "sasrec")
SMEM = Row("smem", "smem", base=PAD, shares=("pretrain",))
CTRL = Row("ctrl", "ctrl")
TUNED = Row("ID expert alone", fields={"experts.use": ("id",)}, base=PAD, shares=("pretrain", "align"))
SINGLE = Row("aligned expert alone", fields={"experts.use": ("aligned",)}, base=PAD, shares=("pretrain", "align"))
LOOSE = Row("not anchored", fields={"alignment.anchored": False}, base=PAD, shares=("pretrain",))


def rows(config: Config) -> list[Row]:
    """The runs whose tables are looked into; those of `compare` and `ablate` are used where they are there."""
    del config
    return [SASREC, PAD, SMEM, CTRL, TUNED, SINGLE, LOOSE]


class Tables(NamedTuple):
    """An expert's ID rows and projected text rows, [N+1, D] each; None where it has none."""

    ids: Any
    text: Any


class Learned:
    """What a finished run has learned."""

    def __init__(self, run: Run):
        self.run = run

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.run.method.phases if phase.name == name)

    def tables(self, phase_name: str, expert: str) -> Tables:
        """Of an expert at the best epoch of a phase."""
        phase = self.phase(phase_name)
        params = self.run.best(phase)
        if expert not in phase.experts:  # carried along
            return Tables(np.asarray(params["tables"][expert]), None)
        item = self._items(phase, params)[expert]
        if expert == "text":
            return Tables(None, np.asarray(item.vector))
        return Tables(np.asarray(params["tables"][expert]), np.asarray(item.parts[1]) if item.parts else None)

    def gates(self) -> dict[str, np.ndarray]:
        """The mean gate of each expert over the items of each bucket, warmest first; NaN for an empty bucket."""
        phase = self.run.method.phases[-1]
        params, bucket = self.run.best(phase), np.asarray(self.run.data.bucket)
        scorer = phase.scorer(self.run.config)
        gates = np.asarray(scorer.gates(params, self._items(phase, params), jnp.asarray(bucket)))
        buckets = self.run.config.data.buckets + 1
        sizes = np.bincount(bucket, minlength=buckets)[1:]
        sums = {e: np.bincount(bucket, gates[:, k], buckets)[1:] for k, e in enumerate(phase.experts)}
        return {e: np.where(sizes > 0, total / np.maximum(sizes, 1), np.nan) for e, total in sums.items()}

    def _items(self, phase: Phase, params: Any) -> Any:
        everything = jnp.arange(self.run.dataset.items + 1)
        return jax.jit(phase.scorer(self.run.config).item_vectors)(params, everything, self.run.data)

    @cached_property
    def raw_text(self) -> np.ndarray:
        """The text table as training reads it."""
        return np.asarray(self.run.data.text)


def report(study: Study) -> Page:
    """The figures of one seed, the first of the study; Fig. 2 of all of them."""
    from pad_jax.report import plots  # slow to import

    seed = study.config.study.seeds[0]
    runs = {row.name: Learned(study.run(row, seed)) for row in study.rows}
    groups = {row.name: study.group(row) for row in study.rows}
    page = study.page(f"Where PAD gains, and what it does to the item tables, on {study.config.dataset}")
    found: list[Claim] = []

    page.heading("Warm, median and cold items (Fig. 2)")
    names = ("warm", "median", "cold", "unseen")
    hits = {
        label: [100 * groups[n].mean(g, "HR@10") for g in names] for label, n in (("SASRec", "sasrec"), ("PAD", "pad"))
    }
    page.picture(
        "frequency",
        plots.grouped_bars(names, hits, "HR@10, %"),
        "Users by how often training met their target: above 50 times, 7 to 50, 1 to 6, never.",
    )
    lifts = [b - a for a, b in zip(hits["SASRec"], hits["PAD"], strict=True)]
    relative = [gain(b, a) for a, b in zip(hits["SASRec"], hits["PAD"], strict=True)]
    found.append(
        Claim(
            "The gain over SASRec is relatively larger for colder items (Fig. 2)",
            ", ".join(f"{n} {x:+.2f} points ({r:+.0f} %)" for n, x, r in zip(names[:3], lifts, relative, strict=False)),
            relative[0] < relative[1] < relative[2],
        )
    )

    first = runs["sasrec"]
    buckets = study.config.data.buckets
    pairs = pairs_by_bucket(first.run.dataset, buckets)
    pretrained = runs["pad"].tables("pretrain", "id").ids
    reference = [distances(pretrained, pairs[b]) for b in range(1, buckets + 1)]
    raw = [distances(runs["pad"].raw_text, pairs[b]) for b in range(1, buckets + 1)]

    def taus(table: np.ndarray, against: list[np.ndarray]) -> list[float]:
        return [kendall_tau(distances(table, pairs[b]), against[b - 1]) for b in range(1, buckets + 1)]

    pad, single = runs["pad"], runs["aligned expert alone"]
    aligned, last = pad.tables("align", "aligned"), pad.tables("finetune", "aligned")
    alone = single.tables("finetune", "aligned")
    panels = {
        "a. after phase 2: aligned ID rows": {
            "anchored": taus(aligned.ids, reference),
            "not anchored": taus(runs["not anchored"].tables("align", "aligned").ids, reference),
        },
        "b. one expert, tuned": {
            "without alignment": taus(runs["ID expert alone"].tables("finetune", "id").ids, reference),
            "with alignment": taus(alone.ids, reference),
        },
        "c. one expert or three: ID rows": {
            "one, aligned": taus(alone.ids, reference),
            "three, ID expert": taus(pad.tables("finetune", "id").ids, reference),
            "three, aligned expert": taus(last.ids, reference),
        },
        "d. one expert or three: projected text": {
            "one, aligned": taus(alone.text, raw),
            "three, aligned expert": taus(last.text, raw),
            "three, text expert": taus(pad.tables("finetune", "text").text, raw),
        },
    }
    page.heading("Kendall's tau of distances (Fig. 6)")
    page.picture(
        "kendall",
        plots.curves(panels, "bucket, 1 is warmest", "Kendall's tau"),
        "How much of the order of distances between a user's items and the target is kept: a to c against the ID table "
        f"of phase 1, d against the text table; seed {seed}.",
    )
    page.table(
        ["", *(f"bucket {b}" for b in range(1, buckets + 1))],
        [[f"{title[0]}. {name}", *map(number, values)] for title, p in panels.items() for name, values in p.items()],
    )
    found += kendall_claims(panels, study.config)

    page.heading("Distances of the closest and the farthest pairs (Fig. 3 and 7)")
    models = {
        "SASRec": (first.tables("pretrain", "id").ids, pad.raw_text),
        "SMEM": runs["smem"].tables("finetune", "aligned"),
        "CTRL": (runs["ctrl"].tables("finetune", "id").ids, runs["ctrl"].tables("align", "aligned").text),
        "PAD": last,
    }
    table, auc = [], {}
    for title, bucket in (("cold", buckets), ("warm", 1)):
        shown = {}
        for name, (ids, text) in models.items():
            by_id, by_text = distances(ids, pairs[bucket]), distances(text, pairs[bucket])
            numbers = separation(by_id, by_text)
            auc[title, name] = numbers["auc"]
            table.append([f"{name}, {title}", *(number(numbers[n]) for n in ("gap", "auc", "ks"))])
            top, bottom = top_and_bottom(by_id)
            shown[f"{name}, {title}: AUC {number(numbers['auc'])}"] = {
                "all": by_text,
                "farthest 10 % by ID": by_text[top],
                "closest 10 % by ID": by_text[bottom],
            }
        page.picture(
            f"distances-{title}",
            plots.distributions(shown, "distance of projected texts"),
            f"Pairs of a user's item with a {title} item (bucket {bucket}): distances of their projected texts, all "
            "pairs and those that the model's ID rows hold farthest apart and closest. Apart means that text knows "
            f"what the IDs know. SASRec has no text side; its panel shows the text table. Seed {seed}.",
        )
    page.table(["", "gap", "AUC", "KS"], table)
    page.text(
        "gap: difference of the means of farthest and closest, in standard deviations of all pairs; AUC: chance that "
        "one of the farthest has the larger text distance; KS: largest distance of the two distribution functions."
    )
    rivals = {n: a for (t, n), a in auc.items() if t == "cold" and n != "PAD"}
    found.append(
        Claim(
            "On cold items PAD tells farthest from closest pairs, the others do not (Fig. 3)",
            ", ".join(f"{n} AUC {a:.2f}" for (t, n), a in auc.items() if t == "cold"),
            auc["cold", "PAD"] > max(rivals.values()),
        )
    )

    page.heading("The learned gate")
    gates = pad.gates()
    page.picture(
        "gate",
        plots.curves({"PAD, phase 3": {e: g.tolist() for e, g in gates.items()}}, "bucket, 1 is warmest", "mean gate"),
        f"Weight of each expert, mean over the items of a bucket; seed {seed}.",
    )
    page.heading("What the paper says, and what was found here")
    claims_table(page, found)
    return page


def kendall_claims(panels: dict[str, dict[str, list[float]]], config: Config) -> list[Claim]:
    """The paper's statements about Fig. 6."""
    a, b, c, _ = panels.values()
    cold = [float(np.mean(a[name][6:])) for name in ("anchored", "not anchored")]
    listed = ", ".join(f"{t:.2f}" for t in b["with alignment"])
    claims = [
        Claim(
            "Without an anchor, alignment disturbs the coldest buckets (7 to 10) most (Fig. 6a)",
            f"mean tau there: anchored {cold[0]:.2f}, not anchored {cold[1]:.2f}",
            cold[0] > cold[1],
        ),
        Claim(
            "One aligned expert: tau is below 0.5 in buckets 1 to 9 and 0.77 in bucket 10 (MIND, 4.6.1)",
            listed,
            all(t < 0.5 for t in b["with alignment"][:-1]) and b["with alignment"][-1] > 0.5,
        ),
        Claim(
            "Alignment disturbs a single expert more than tuning alone, in every bucket (Fig. 6b)",
            f"mean tau: without {np.mean(b['without alignment']):.2f}, with {np.mean(b['with alignment']):.2f}",
            all(x < y for x, y in zip(b["with alignment"], b["without alignment"], strict=True)),
        ),
    ]
    best = [max(pair) for pair in zip(c["three, ID expert"], c["three, aligned expert"], strict=True)]
    note = " (its ID expert is frozen in phase 3, so tau is 1)" if config.experts.freeze_carried else ""
    claims.append(
        Claim(
            "In every bucket one of the two ID tables of three experts keeps more than the single expert (Fig. 6c)",
            f"mean tau of the better: {np.mean(best):.2f}, of the single: {np.mean(c['one, aligned']):.2f}{note}",
            all(x > y for x, y in zip(best, c["one, aligned"], strict=True)),
        )
    )
    return claims
