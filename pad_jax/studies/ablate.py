"""PAD without what makes it PAD, one thing at a time (paper, Fig. 4 and 5)."""

from collections.abc import Mapping
from itertools import pairwise

from pad_jax.config import Config
from pad_jax.evaluation.significance import bootstrap_interval
from pad_jax.report.groups import RunGroup
from pad_jax.report.page import Page
from pad_jax.studies.claims import Claim, claims_table
from pad_jax.studies.study import Row, Study

PAD = Row("pad")
#: Panel -> rows. Phases before the one that differs are PAD's own.
PANELS: dict[str, list[Row]] = {
    "Alignment (Fig. 4)": [
        Row("no alignment (SMEM)", "smem", base=PAD, shares=("pretrain",)),
        Row("not anchored", fields={"alignment.anchored": False}, base=PAD, shares=("pretrain",)),
        Row("anchored, IDs frozen", fields={"alignment.freeze_ids": True}, base=PAD, shares=("pretrain",)),
    ],
    "Kernel (Fig. 5a)": [
        Row("laplacian", fields={"mmd.kernel": "laplacian"}, base=PAD, shares=("pretrain",)),
        Row("linear", fields={"mmd.kernel": "linear"}, base=PAD, shares=("pretrain",)),
        Row("cosine", fields={"mmd.kernel": "cosine"}, base=PAD, shares=("pretrain",)),
        Row("InfoNCE", fields={"alignment.loss": "infonce"}, base=PAD, shares=("pretrain",)),
    ],
    "Experts (Fig. 5b)": [
        Row(name, fields={"experts.use": use}, base=PAD, shares=("pretrain", "align"))
        for name, use in {
            "without ID expert": ("aligned", "text"),
            "without aligned expert": ("id", "text"),
            "without text expert": ("id", "aligned"),
            "ID expert alone": ("id",),
            "aligned expert alone": ("aligned",),
            "text expert alone": ("text",),
        }.items()
    ],
    "Gate (Fig. 5b)": [
        Row(f"gate {kind}", fields={"gate.kind": kind}, base=PAD, shares=("pretrain", "align"))
        for kind in ("bucket", "bucket_emb", "shared")
    ],
}


def rows(config: Config) -> list[Row]:
    """PAD, and every variant that it is not itself."""
    variants = [row for panel in panels(config).values() for row in panel]
    return [PAD, *variants]


def panels(config: Config) -> dict[str, list[Row]]:
    """`PANELS` without the gate that the configuration has anyway."""
    return {
        title: [row for row in panel if row.fields.get("gate.kind") != config.gate.kind]
        for title, panel in PANELS.items()
    }


def report(study: Study) -> Page:
    """A table and a picture per panel: each variant beside PAD."""
    from pad_jax.report import plots  # slow to import

    groups = {row.name: study.group(row) for row in study.rows}
    pad = groups["pad"]
    page = study.page(f"PAD with one thing changed, on {study.config.dataset}, loss {study.config.loss}")
    page.text(
        "The difference is variant minus PAD in points of HR@10 and nDCG@10, with a 95 % bootstrap interval over "
        f"users. PAD here has the {study.config.mmd.kernel} kernel and the gate `{study.config.gate.kind}`."
    )
    header = ["", "HR@10", "nDCG@10", "HR@10 minus PAD", "nDCG@10 minus PAD", "nDCG@10 cold", "nDCG@10 unseen"]
    for title, panel in panels(study.config).items():
        named = {"**PAD**": pad, **{row.name: groups[row.name] for row in panel if row.name in groups}}
        if len(named) == 1:
            continue
        page.heading(title)
        table = []
        for name, group in named.items():
            cells = [group.cell("all", metric) for metric in ("HR@10", "nDCG@10")]
            cells += [difference(group, pad, metric) if group is not pad else "" for metric in ("HR@10", "nDCG@10")]
            table.append([name, *cells, group.cell("cold", "nDCG@10"), group.cell("unseen", "nDCG@10")])
        page.table(header, table)
        metrics = ("HR@10", "nDCG@10")
        values = {m: [[100 * r["test"][m] for r in group.results] for group in named.values()] for m in metrics}
        figure = plots.ranking_bars([name.strip("*") for name in named], values, {})
        page.picture(title.split()[0].lower(), figure, f"{title}: mean over seeds; strokes are single seeds.")
    page.heading("What the paper says, and what was found here")
    page.text("The paper's ablations are in HR@10; so is this table.")
    claims_table(page, claims(groups))
    return page


def difference(first: RunGroup, second: RunGroup, metric: str) -> str:
    """First minus second in points, with its interval."""
    mean, low, high = (100 * x for x in bootstrap_interval(first.per_user(metric) - second.per_user(metric)))
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def claims(groups: Mapping[str, RunGroup]) -> list[Claim]:
    """The paper's statements about Fig. 4 and 5, as orders of HR@10."""
    hits = {name: 100 * group.mean("all", "HR@10") for name, group in groups.items()}
    found = []

    def order(text: str, *descending: str) -> None:
        if set(descending) <= set(hits):
            listed = ", ".join(f"{name} {hits[name]:.2f}" for name in descending)
            found.append(Claim(text, listed, all(hits[a] > hits[b] for a, b in pairwise(descending))))

    def above(text: str, upper: list[str], lower: list[str]) -> None:
        if set(upper + lower) <= set(hits):
            listed = ", ".join(f"{name} {hits[name]:.2f}" for name in upper + lower)
            found.append(Claim(text, listed, min(hits[n] for n in upper) > max(hits[n] for n in lower)))

    order(
        "The anchored alignment is above the one with frozen IDs, and that above the one not anchored (Fig. 4)",
        "pad",
        "anchored, IDs frozen",
        "not anchored",
    )
    above("The anchored alignment is above none (Fig. 4)", ["pad"], ["no alignment (SMEM)"])
    above(
        "Characteristic kernels, gaussian and laplacian, are above linear, cosine and InfoNCE (Fig. 5a)",
        ["pad", "laplacian"],
        ["linear", "cosine", "InfoNCE"],
    )
    above("InfoNCE is above the cosine kernel (Fig. 5a)", ["InfoNCE"], ["cosine"])
    without = ["without ID expert", "without aligned expert", "without text expert"]
    above("Every expert that is left out is missed (Fig. 5b)", ["pad"], without)
    above("The ID expert is missed most (Fig. 5b)", without[1:], without[:1])
    above(
        "The aligned expert is the best one alone (Fig. 5b)",
        ["aligned expert alone"],
        ["ID expert alone", "text expert alone"],
    )
    above("A gate that does not know frequencies loses (Fig. 5b; -3.06 % of HR@10 on MIND)", ["pad"], ["gate shared"])
    return found
