"""All methods under one protocol (paper, Table 2)."""

import numpy as np

from pad_jax.config import Config
from pad_jax.evaluation.significance import bootstrap_interval, paired_t_test
from pad_jax.methods import METHODS
from pad_jax.report.groups import RunGroup
from pad_jax.report.page import Page
from pad_jax.report.table import GROUPS, LABELS
from pad_jax.studies.claims import Claim, claims_table
from pad_jax.studies.study import Row, Study, chance, gain


def rows(config: Config) -> list[Row]:
    """Every method; SMEM takes PAD's phase 1 as it is."""
    del config
    found = {name: Row(name, name) for name in METHODS if name != "smem"}
    found["smem"] = Row("smem", "smem", base=found["pad"], shares=("pretrain",))
    return list(found.values())


def report(study: Study) -> Page:
    """Means and deviations over seeds, gains over SASRec, and whether they are more than chance."""
    from pad_jax.report import plots  # slow to import

    groups = {row.name: study.group(row) for row in study.rows}
    names = [name for name in METHODS if name in groups]  # weakest idea first, PAD last
    per_user = {name: groups[name].per_user("nDCG@10") for name in names}
    ndcg = {name: float(values.mean()) for name, values in per_user.items()}
    rivals = [name for name in names if name != "pad"]
    best = max(rivals, key=lambda name: ndcg[name]) if rivals else ""

    page = study.page(f"All methods on {study.config.dataset}, loss {study.config.loss}")
    page.text(
        "Every method has the same loss, patience, batch and learning rates, and as many epochs in all as PAD's "
        "phases together. Mean and standard deviation over seeds; the gain is that of nDCG@10 over SASRec; p is of a "
        f"paired t-test over users' nDCG@10 (mean over seeds) against the best baseline, {best or '-'}. Parameters "
        "are without the text table. Seconds per epoch, evaluation included, are a mean over phases; runs may have "
        "shared their machine, so take them for a rough scale."
    )
    header = ["", "HR@10", "nDCG@10", "gain", "p", *(f"nDCG@10 {g}" for g in GROUPS[1:]), "parameters", "s / epoch"]
    table = []
    for name in names:
        group = groups[name]
        more, p = "-", "-"
        if "sasrec" in names and name != "sasrec":
            more = f"{gain(ndcg[name], ndcg['sasrec']):+.1f} %"
        if best and name != best:
            p = chance(paired_t_test(per_user[name], per_user[best]))
        parts = [group.cell(g, "nDCG@10") for g in GROUPS[1:]]
        table.append(
            [
                f"**{name}**" if name == "pad" else name,
                group.cell("all", "HR@10"),
                group.cell("all", "nDCG@10"),
                more,
                p,
                *parts,
                f"{group.parameters:,}",
                f"{group.seconds_per_epoch:.0f}",
            ]
        )
    baselines = groups[names[0]].results[0]["baselines"]
    for name, metrics in baselines.items():
        if metrics is not None:
            test = metrics["test"]
            parts = [test["by_frequency"][g]["nDCG@10"] for g in GROUPS[1:]]
            cells = ["-" if v is None else f"{100 * v:.2f}" for v in (test["HR@10"], test["nDCG@10"], *parts)]
            table.append([LABELS[name], *cells[:2], "", "", *cells[2:], "", ""])
    page.table(header, table)
    values = {m: [[100 * r["test"][m] for r in groups[name].results] for name in names] for m in ("HR@10", "nDCG@10")}
    lines = {
        LABELS[name]: {m: 100 * metrics["test"][m] for m in values}
        for name, metrics in baselines.items()
        if metrics is not None
    }
    page.picture("methods", plots.ranking_bars(names, values, lines), "Mean over seeds; strokes are single seeds.")
    page.heading("What the paper says, and what was found here")
    claims_table(page, claims(groups))
    return page


def claims(groups: dict[str, RunGroup]) -> list[Claim]:
    """The paper's statements about Table 2."""

    def mean(name: str) -> np.ndarray:
        return groups[name].per_user("nDCG@10")

    found = []
    rivals = [name for name in groups if name != "pad"]
    if "pad" in groups and rivals:
        best = max(rivals, key=lambda name: mean(name).mean())
        difference, low, high = (100 * x for x in bootstrap_interval(mean("pad") - mean(best)))
        p = paired_t_test(mean("pad"), mean(best))
        found.append(
            Claim(
                "PAD is ahead of every baseline, p < 0.05 (Table 2)",
                f"PAD minus {best}: {difference:+.2f} points of nDCG@10 [{low:+.2f}, {high:+.2f}], p {chance(p)}",
                difference > 0 and p < 0.05,
            )
        )
    if {"pad", "smem"} <= set(groups):
        more = gain(float(mean("pad").mean()), float(mean("smem").mean()))
        found.append(
            Claim(
                "PAD is above SMEM in nDCG@10: +1.51 % on MIND, +7.60 % on Electronics, +9.54 % on Prime Pantry",
                f"{more:+.2f} %",
                more > 0,
            )
        )
    if {"pad", "sasrec"} <= set(groups):
        lifts = {}
        for group in ("warm", "median", "cold"):
            lifts[group] = gain(*(groups[name].mean(group, "nDCG@10") for name in ("pad", "sasrec")))
        found.append(
            Claim(
                "PAD's gain over SASRec grows as items get colder (+63 %, +202 % and +463 % on Electronics)",
                ", ".join(f"{lift:+.0f} % {group}" for group, lift in lifts.items()),
                lifts["warm"] < lifts["median"] < lifts["cold"],
            )
        )
    return found
