"""Backbones alone and under PAD (paper, Table 3)."""

from pad_jax.evaluation.significance import paired_t_test
from pad_jax.models.backbones import BACKBONES
from pad_jax.report.groups import RunGroup
from pad_jax.report.page import Page
from pad_jax.report.table import percent
from pad_jax.settings import Config
from pad_jax.studies.claims import Claim, above, claims_table
from pad_jax.studies.study import Row, Study, chance, equal_budget, gain

TITLES = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser"}


def rows(config: Config) -> list[Row]:
    """Each backbone on IDs alone, and PAD with it, with as many epochs in all."""
    return [
        Row(f"{b} {m}", m, {"backbone": b, **equal_budget(config, m)}) for b in BACKBONES for m in ("sasrec", "pad")
    ]


def report(study: Study) -> Page:
    """HR@10 and nDCG@10 of both, and what PAD adds."""
    from pad_jax.report import plots  # slow to import

    groups = {row.name: study.group(row) for row in study.rows}
    page = study.page(f"Backbones alone and under PAD on {study.config.dataset}, loss {study.config.loss}")
    page.text(
        "`alone` is the backbone on item IDs, with as many epochs as PAD's phases together. The gain is relative; p is "
        "of a paired t-test over users' nDCG@10 (mean over seeds)."
    )
    table = []
    bars: dict[str, list[float]] = {"alone": [], "PAD": []}
    names = [b for b in BACKBONES if {f"{b} sasrec", f"{b} pad"} <= set(groups)]
    for backbone in names:
        alone, pad = groups[f"{backbone} sasrec"], groups[f"{backbone} pad"]
        both = [g.mean("all", "nDCG@10") for g in (alone, pad)]
        p = paired_t_test(pad.per_user("nDCG@10"), alone.per_user("nDCG@10"))
        bars["alone"].append(100 * both[0])
        bars["PAD"].append(100 * both[1])
        for title, group, gained in (
            ("alone", alone, ["", ""]),
            ("PAD", pad, [percent(gain(both[1], both[0])), chance(p)]),
        ):
            metrics = ("all", "HR@10"), ("all", "nDCG@10"), ("cold", "nDCG@10")
            cells = [group.cell(users, metric) for users, metric in metrics] + gained
            numbers = [f"{group.parameters:,}", f"{group.seconds_per_epoch:.0f}"]
            table.append([f"{TITLES.get(backbone, backbone)}, {title}", *cells, *numbers])
    page.table(["", "HR@10", "nDCG@10", "nDCG@10 cold", "gain", "p", "parameters", "s / epoch"], table)
    if names:
        figure = plots.grouped_bars([TITLES.get(b, b) for b in names], bars, "nDCG@10, %")
        page.picture("backbones", figure, "nDCG@10 of each backbone alone and under PAD, mean over seeds.")
    claims_table(page, claims(groups), len(study.config.study.seeds))
    return page


def claims(groups: dict[str, RunGroup]) -> list[Claim]:
    """The paper's statement about Table 3, for each backbone."""
    return [
        above(f"PAD improves {title} (Table 3)", groups, [f"{name} pad"], [f"{name} sasrec"], "nDCG@10")
        for name, title in TITLES.items()
    ]
