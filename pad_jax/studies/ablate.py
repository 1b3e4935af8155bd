"""PAD without what makes it PAD, one thing at a time (paper, Fig. 4 and 5)."""

from dataclasses import replace
from typing import Any

from pad_jax.report.groups import RunGroup, paired
from pad_jax.report.page import Page
from pad_jax.settings import Config, as_dict, dotted
from pad_jax.studies.claims import Claim, above, claims_table, interval, over, points
from pad_jax.studies.study import Row, Study, equal_budget

PAD = Row("pad")
FROM_ALIGN: dict[str, Any] = {"base": PAD, "shares": ("pretrain",)}
FROM_FINETUNE: dict[str, Any] = {"base": PAD, "shares": ("pretrain", "align")}
#: Panel -> rows. Phases before the one that differs are PAD's own.
PANELS: dict[str, list[Row]] = {
    "Alignment (Fig. 4)": [
        Row("no alignment (SMEM)", "smem", **FROM_ALIGN),
        Row("phase 2 without MMD", fields={"mmd.weight": 0.0}, **FROM_ALIGN),
        Row("not anchored", fields={"alignment.anchored": False}, **FROM_ALIGN),
        Row("anchored, IDs frozen", fields={"alignment.freeze_ids": True}, **FROM_ALIGN),
    ],
    "Kernel (Fig. 5a)": [
        *(
            Row(name, fields={"mmd.kernel": name, "alignment.loss": "mmd"}, **FROM_ALIGN)
            for name in ("gaussian", "laplacian", "linear", "cosine", "cosine_paper")
        ),
        Row("InfoNCE", fields={"alignment.loss": "infonce"}, **FROM_ALIGN),
    ],
    "Experts (Fig. 5b)": [
        Row(name, fields={"experts.use": use}, **FROM_FINETUNE)
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
        Row(f"gate {kind}", fields={"gate.kind": kind}, **FROM_FINETUNE) for kind in ("bucket", "bucket_emb", "shared")
    ],
}
NOTES = {
    "Alignment": "SMEM's aligned expert starts from fresh ID rows and has the same updates without MMD; the row below "
    "it lacks the MMD alone.",
    "Kernel": "`cosine` is the kernel k = cos; the paper's Eq. (15) is 1 - cos, a distance, which is `cosine_paper`. "
    "InfoNCE has the released code's weight 0.01, the kernels have `mmd.weight`.",
    "Experts": "The text expert is trained in phase 3 alone and starts from nothing there; the ID and the aligned "
    "expert come from phases before. `without` keeps the gate's starts of the others.",
    "Gate": "`shared` puts every item into bucket 0.",
}


def rows(config: Config) -> list[Row]:
    """PAD, and every variant that it is not itself."""
    return [PAD, *(row for panel in panels(config).values() for row in panel)]


def panels(config: Config) -> dict[str, list[Row]]:
    """`PANELS` without what the configuration is anyway; another method has as many epochs in all as PAD."""
    known = dotted(as_dict(config))

    def same(row: Row) -> bool:
        return row.method == "pad" and all(known[name] == value for name, value in row.fields.items())

    def fair(row: Row) -> Row:
        return row if row.method == "pad" else replace(row, fields=equal_budget(config, row.method))

    return {title: [fair(row) for row in panel if not same(row)] for title, panel in PANELS.items()}


def report(study: Study) -> Page:
    """A table and a picture per panel: each variant beside PAD."""
    from pad_jax.report import plots  # slow to import

    groups = {row.name: study.group(row) for row in study.rows}
    pad, drawn = groups["pad"], over(len(study.config.study.seeds))
    page = study.page(f"PAD with one thing changed, on {study.config.dataset}, loss {study.config.loss}")
    c = study.config
    loss = f"the kernel `{c.mmd.kernel}`" if c.alignment.loss == "mmd" else "InfoNCE"
    page.text(
        f"The difference is variant minus PAD in points, with a 95 % bootstrap interval over {drawn}. PAD here has "
        f"{loss}, `mmd.weight` {c.mmd.weight:g} and the gate `{c.gate.kind}`."
    )
    header = ["", "HR@10", "nDCG@10", "HR@10 minus PAD", "nDCG@10 minus PAD", "nDCG@10 cold", "nDCG@10 unseen"]
    for title, panel in panels(study.config).items():
        variants = {row.name: groups[row.name] for row in panel if row.name in groups}
        if not variants:
            continue
        found = {
            metric: [interval(paired(group.by_seed(metric), pad.by_seed(metric))) for group in variants.values()]
            for metric in ("HR@10", "nDCG@10")
        }
        differences = [["", ""], *([points(x) for x in pair] for pair in zip(*found.values(), strict=True))]
        page.heading(title)
        page.text(NOTES[title.split()[0]])
        table = []
        for (name, group), minus in zip({"**PAD**": pad, **variants}.items(), differences, strict=True):
            cells = [group.cell("all", metric) for metric in found]
            table.append([name, *cells, *minus, group.cell("cold", "nDCG@10"), group.cell("unseen", "nDCG@10")])
        page.table(header, table)
        figure = plots.differences(list(variants), found, "PAD")
        page.picture(title.split()[0].lower(), figure, f"{title}: difference to PAD, 95 % interval over {drawn}.")
    claims_table(page, claims(groups, c), len(c.study.seeds))
    return page


def claims(groups: dict[str, RunGroup], config: Config) -> list[Claim]:
    """The paper's statements about Fig. 4 and 5, which are in HR@10."""
    own = "InfoNCE" if config.alignment.loss == "infonce" else config.mmd.kernel
    losses = groups | {own: groups["pad"]}
    without = ["without ID expert", "without aligned expert", "without text expert"]
    gates = groups | {f"gate {config.gate.kind}": groups["pad"]}
    frequent = "gate bucket" if config.gate.kind == "shared" else f"gate {config.gate.kind}"

    def order(paper: str, among: dict[str, RunGroup], upper: list[str], lower: list[str]) -> Claim:
        return above(paper, among, upper, lower, "HR@10")

    return [
        order(
            "The anchored alignment is above the one with frozen IDs (Fig. 4)",
            groups,
            ["pad"],
            ["anchored, IDs frozen"],
        ),
        order("Frozen IDs are above no anchor (Fig. 4)", groups, ["anchored, IDs frozen"], ["not anchored"]),
        order("The anchored alignment is above none (Fig. 4)", groups, ["pad"], ["no alignment (SMEM)"]),
        order(
            "Characteristic kernels are above linear, cosine and InfoNCE (Fig. 5a)",
            losses,
            ["gaussian", "laplacian"],
            ["linear", "cosine_paper", "InfoNCE"],
        ),
        order("InfoNCE is above the cosine kernel (Fig. 5a)", losses, ["InfoNCE"], ["cosine_paper"]),
        order("Every expert that is left out is missed (Fig. 5b)", groups, ["pad"], without),
        order("The ID expert is missed most (Fig. 5b)", groups, without[1:], without[:1]),
        order(
            "The aligned expert is the best one alone (Fig. 5b)",
            groups,
            ["aligned expert alone"],
            ["ID expert alone", "text expert alone"],
        ),
        order("A gate blind to frequency loses (Fig. 5b; -3.06 % on MIND)", gates, [frequent], ["gate shared"]),
    ]
