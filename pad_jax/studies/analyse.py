"""Where PAD gains, and what its phases do to the item tables (paper, Fig. 2, 3, 6 and 7)."""

from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.evaluation.analysis import distances, kendall_tau, pairs_by_bucket, separation, top_and_bottom
from pad_jax.pipeline import Run
from pad_jax.report.page import Page
from pad_jax.report.table import number, percent
from pad_jax.settings import Config
from pad_jax.studies.ablate import FROM_ALIGN, FROM_FINETUNE, PAD
from pad_jax.studies.claims import UNTESTED, Claim, above, claims_table, judged
from pad_jax.studies.study import Row, Study, equal_budget, gain
from pad_jax.studies.users import EACH, users_page
from pad_jax.training.phase import Phase

TUNED = Row("ID expert alone", fields={"experts.use": ("id",)}, **FROM_FINETUNE)
SINGLE = Row("aligned expert alone", fields={"experts.use": ("aligned",)}, **FROM_FINETUNE)
LOOSE = Row("not anchored", fields={"alignment.anchored": False}, **FROM_ALIGN)


def rows(config: Config) -> list[Row]:
    """The runs whose tables are looked into; those of `compare` and `ablate` are used where they are there."""
    sasrec, ctrl = (Row(name, name, equal_budget(config, name)) for name in ("sasrec", "ctrl"))
    smem = Row("smem", "smem", equal_budget(config, "smem"), **FROM_ALIGN)
    return [sasrec, PAD, smem, ctrl, TUNED, SINGLE, LOOSE]


#: AUC from which distances of text tell pairs apart.
TELLS = 0.6


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

    def gates(self, learned: bool) -> dict[str, np.ndarray]:
        """The mean gate of each expert over the items of each bucket, warmest first; NaN for an empty bucket.

        Without `learned`, as phase 3 began.
        """
        phase, config = self.run.method.phases[-1], self.run.config
        params, bucket = self.run.best(phase), np.asarray(self.run.data.bucket)
        items = self._items(phase, params)
        if not learned:
            params = phase.fresh(config, jax.random.key(config.seed), 1, self.run.data.text.shape[1])
        counts = jnp.asarray(self.run.data.counts)
        gates = np.asarray(phase.scorer(config).gates(params, items, jnp.asarray(bucket), counts))
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
    relative = [gain(b, a) for a, b in zip(hits["SASRec"], hits["PAD"], strict=True)][:3]
    found.append(
        Claim(
            "The gain over SASRec is relatively larger for colder items (Fig. 2)",
            "HR@10: " + ", ".join(f"{n} {percent(r)}" for n, r in zip(names[:3], relative, strict=True)),
            judged(relative[0] < relative[1] < relative[2], relative),
        )
    )

    page.heading("What users of each group are recommended")
    page.attach(
        "users.html",
        users_page(study.config.dataset, {"PAD": runs["pad"].run, "SASRec": runs["sasrec"].run}),
        f"Up to {EACH} users of each group above, drawn at random, with their histories, lists and true next items, "
        f"for every phase of PAD and for SASRec (seed {seed}); one file that needs no server:",
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
        "of phase 1, d against the text table as training reads it (transform "
        f"`{study.config.text.transform}`); seed {seed}.",
    )
    page.table(
        ["", *(f"bucket {b}" for b in range(1, buckets + 1))],
        [[f"{title[0]}. {name}", *map(number, values)] for title, p in panels.items() for name, values in p.items()],
    )
    found += kendall_claims(panels, frozen=study.config.alignment.freeze_ids)
    paper = "Three experts are above the single aligned one (nDCG@10 +3.59 % on MIND, 4.6.2)"
    found.append(above(paper, groups, ["pad"], ["aligned expert alone"], "nDCG@10"))

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
            f"what the IDs know. SMEM and PAD: their aligned expert; CTRL: the IDs of its last stage, the text of its "
            f"first; SASRec has no text side, its panel shows the text table as training reads it. Seed {seed}.",
        )
    page.table(["", "gap", "AUC", "KS"], table)
    page.text(
        "gap: difference of the means of farthest and closest, in standard deviations of all pairs; AUC: chance that "
        "one of the farthest has the larger text distance; KS: largest distance of the two distribution functions."
    )
    for title, paper in (
        ("cold", "On cold items PAD tells the farthest pairs from the closest by text, the others do not (Fig. 3)"),
        ("warm", "On warm items no model does (Fig. 7)"),
    ):
        values = {n: a for (t, n), a in auc.items() if t == title}
        tells = [n for n, a in values.items() if a >= TELLS]
        found.append(
            Claim(
                f"{paper}; here from an AUC of {TELLS} on",
                ", ".join(f"{n} {number(a)}" for n, a in values.items()),
                judged(tells == (["PAD"] if title == "cold" else []), values.values()),
            )
        )

    page.heading("The learned gate")
    gates, starts = pad.gates(learned=True), pad.gates(learned=False)
    moved = max(float(np.nanmax(np.abs(gates[e] - starts[e]))) for e in gates)
    series, dashed = ({e: g.tolist() for e, g in x.items()} for x in (gates, starts))
    page.picture(
        "gate",
        plots.curves({"PAD, phase 3": series}, "bucket, 1 is warmest", "mean gate", dashed),
        f"Weight of each expert, mean over the items of a bucket, dashed as phase 3 began; it moved by {moved:.3f} "
        f"at most; seed {seed}.",
    )
    claims_table(page, found, len(study.config.study.seeds))
    return page


def kendall_claims(panels: dict[str, dict[str, list[float]]], frozen: bool = False) -> list[Claim]:
    """The paper's statements about Fig. 6; none is judged where phase 2 was told to leave the ID rows `frozen`."""
    a, b, c, d = ({name: np.array(values) for name, values in p.items()} for p in panels.values())
    gap = a["anchored"] - a["not anchored"]
    coldest = max(round(0.4 * len(gap)), 1)  # 7 to 10 of 10
    cold, rest = float(gap[-coldest:].mean()), float(gap[:-coldest].mean()) if len(gap) > coldest else float("nan")
    single = b["with alignment"]
    best = np.maximum(c["three, ID expert"], c["three, aligned expert"])
    listed = ", ".join(map(number, single.tolist()))
    without = b["without alignment"]
    ids, text = (np.concatenate(list(x.values())) for x in (c, d))
    claims = [
        Claim(
            "Without an anchor, alignment disturbs most of all the coldest buckets (7 to 10, Fig. 6a)",
            f"tau anchored minus not anchored: coldest {coldest} buckets {number(cold)}, the others {number(rest)}",
            judged(cold > 0 and cold > rest, [cold, rest]),
        ),
        Claim(
            "One aligned expert: tau is below 0.5 in buckets 1 to 9 and 0.77 in bucket 10 (MIND, 4.6.1)",
            listed,
            judged(bool((single[:-1] < 0.5).all() and single[-1] > 0.5), single),
        ),
        Claim(
            "Alignment disturbs a single expert more than tuning alone, in every bucket (Fig. 6b)",
            f"mean tau: without {number(float(without.mean()))}, with {number(float(single.mean()))}; lower in "
            f"{int((single < without).sum())} of {len(single)} buckets",
            judged(bool((single < without).all()), [*single, *without]),
        ),
        Claim(
            "In every bucket one of the two ID tables of three experts keeps more than the single expert (Fig. 6c)",
            f"in {int((best > single).sum())} of {len(best)} buckets",
            judged(bool((best > single).all()), [*best, *single]),
        ),
        Claim(
            "Curves of IDs lie mostly above curves of text (Fig. 6c, d)",
            f"mean tau of IDs {number(float(ids.mean()))}, of text {number(float(text.mean()))}",
            judged(bool(ids.mean() > text.mean()), [*ids, *text]),
        ),
    ]
    if frozen:
        return [c._replace(found=f"{c.found}; frozen by alignment.freeze_ids", verdict=UNTESTED) for c in claims]
    return claims
