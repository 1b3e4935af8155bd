"""All methods under one protocol (paper, Table 2)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pad_jax.data.dataset import HISTORY_GROUPS
from pad_jax.evaluation.significance import paired_t_test
from pad_jax.methods import METHODS, registry
from pad_jax.report.groups import RunGroup, differ_by_minutes
from pad_jax.report.page import Page, add_trade_off
from pad_jax.report.table import GROUPS, LABELS, number, percent, shown
from pad_jax.settings import Config
from pad_jax.studies.claims import UNTESTED, Claim, above, claims_table, cut_by_minutes, judged
from pad_jax.studies.study import Row, Study, chance, equal_budget, gain

#: The baselines of the paper's Table 2; other methods are rows that it has not.
TABLE_2 = ("sasrec", "hybrid", "morec", "ctrl", "make", "disco", "smem")
WITHOUT_MMD = "pad without MMD"


def methods() -> list[str]:
    """All of them, PAD last."""
    return [*(name for name in METHODS if name != "pad"), "pad"]


def rows(config: Config) -> list[Row]:
    """Every method with as many epochs in all as PAD; SMEM and LLMEmb take PAD's phase 1 as it is.

    PAD also stands without its MMD, where it has one. Without `study.only` those of the paper and own ones are run, and
    not the package's other systems.
    """
    package = str(Path(registry.__file__).resolve().parent)
    found = {}
    for name in methods():
        usual = name in (*TABLE_2, "blend", "pad") or not METHODS.entry(name).source.startswith(package)
        found[name] = Row(name, name, equal_budget(config, name), usual=usual)
    for name in ("smem", "llmemb"):
        found[name] = replace(found[name], base=found["pad"], shares=("pretrain",))
    if config.alignment.loss == "mmd" and config.mmd.weight:
        pad = found.pop("pad")
        without = Row(WITHOUT_MMD, fields={"mmd.weight": 0.0}, base=pad, shares=("pretrain",))
        found |= {WITHOUT_MMD: without, "pad": pad}
    return list(found.values())


def report(study: Study) -> Page:
    """Means and deviations over seeds, gains over SASRec, and whether they are more than chance."""
    from pad_jax.report import plots  # slow to import

    groups = {row.name: study.group(row) for row in study.rows}
    ndcg = {name: group.per_user("nDCG@10") for name, group in groups.items()}
    best = best_baseline(groups)

    page = study.page(f"All methods on {study.config.dataset}, loss {study.config.loss}")
    page.text(
        "Every method has the same patience and batch, and as many epochs in all as PAD's phases together: the last "
        "phase of a method gets those of the phases that it has not. A phase has the learning rate that PAD's phase of "
        "this name has, and a recommender that starts from nothing that of phase 1. The recipe was chosen for `staged` "
        "on validation data; its ways with text (`train.adjustment` in the loss of whatever reads text, "
        "`model.fusion`, `model.text_tower`) hold for every method that has such parts."
    )
    page.text(
        "Mean and standard deviation over seeds. `gain` is that of nDCG@10 over SASRec; p is of a paired t-test over "
        f"users' nDCG@10 (mean over these seeds) against the best baseline, {best or '-'}, by nDCG@10 on validation, "
        "which for `blend` is of events that its shares were fitted to. Parameters are without the text table. Seconds "
        "per epoch, evaluation included, are a mean over phases, each with its median epoch; runs may have shared "
        "their machine, so take them for a rough scale."
    )
    header = ["", "HR@10", "nDCG@10", "gain over sasrec", f"p against {best or '-'}"]
    header += [*(f"nDCG@10 {g}" for g in GROUPS[1:]), "parameters", "s / epoch"]
    table = []
    for name, group in groups.items():
        more = p = "-"
        if "sasrec" in groups and name != "sasrec":
            more = percent(gain(float(ndcg[name].mean()), float(ndcg["sasrec"].mean())))
        if best and name != best:
            p = chance(paired_t_test(ndcg[name], ndcg[best]))
        title = f"**{name}**" if name == "pad" else shown(name)
        cells = [group.cell("all", "HR@10"), group.cell("all", "nDCG@10"), more, p]
        cells += [group.cell(g, "nDCG@10") for g in GROUPS[1:]]
        table.append([title, *cells, f"{group.parameters:,}", f"{group.seconds_per_epoch:.0f}"])
    known = study.baselines()
    for name, test in known.items():
        parts = [test["by_frequency"][g]["nDCG@10"] for g in GROUPS[1:]]
        cells = ["-" if v is None else number(100 * v) for v in (test["HR@10"], test["nDCG@10"], *parts)]
        table.append([LABELS[name], *cells[:2], "", "", *cells[2:], "", ""])
    page.table(header, table)
    history_table(page, groups, known)
    page.heading("Updates")
    page.text(
        "Steps of the optimizer until early stopping ended each phase, a mean over seeds, in thousands: all of them, "
        "and those that moved each expert. Equal budgets in all are not equal budgets of each expert: PAD trains its "
        "experts one after the other, a method of one phase all that it has at once."
    )
    updates = {name: updates_of(study, name, group) for name, group in groups.items()}
    experts = list(dict.fromkeys(expert for found in updates.values() for expert in found if expert != "all"))
    thousands = {n: [f"{u[e] / 1000:.1f}" if u.get(e) else "-" for e in ("all", *experts)] for n, u in updates.items()}
    page.table(["", "all", *experts], [[shown(name), *cells] for name, cells in thousands.items()])
    values = {
        m: [[100 * r["test"][m] for r in group.results] for group in groups.values()] for m in ("HR@10", "nDCG@10")
    }
    lines = {LABELS[name]: {m: 100 * test[m] for m in values} for name, test in known.items()}
    bars = plots.ranking_bars([shown(name) for name in groups], values, lines)
    page.picture("methods", bars, "Mean over seeds; strokes are single seeds.")
    tests = {LABELS[name]: test for name, test in known.items()}
    add_trade_off(page, {shown(name): group.metrics("all") for name, group in groups.items()}, tests)
    found = claims(groups, {name: 100 * test["nDCG@10"] for name, test in tests.items()})
    claims_table(page, found, len(study.config.study.seeds))
    return page


def history_table(page: Page, groups: dict[str, RunGroup], baselines: dict[str, dict[str, Any]]) -> None:
    """nDCG@10 by how many items users have met before; nothing for results that do not have it."""
    tests = [r["test"] for group in groups.values() for r in group.results] + list(baselines.values())
    if not all("by_history" in test for test in tests):
        return
    users = next(iter(groups.values())).results[0]["test"]["by_history"]
    page.heading("Users with short and long histories")
    page.text(
        "nDCG@10 of users who have met "
        + ", ".join(f"{low} to {high}" if high else f"{low} or more" for low, high in HISTORY_GROUPS.values())
        + " items before their target, a mean over seeds."
    )
    table = []
    for name, group in groups.items():
        found = [[r["test"]["by_history"][g]["nDCG@10"] for r in group.results] for g in HISTORY_GROUPS]
        cells = ("-" if None in values else number(100 * float(np.mean(values))) for values in found)
        table.append([shown(name), *cells])
    for name, test in baselines.items():
        of = [test["by_history"][g]["nDCG@10"] for g in HISTORY_GROUPS]
        table.append([LABELS[name], *("-" if value is None else number(100 * value) for value in of)])
    page.table(["", *(f"{g} ({users[g]['users']:,})" for g in HISTORY_GROUPS)], table)


def updates_of(study: Study, name: str, group: RunGroup) -> dict[str, float]:
    """Steps of a row, a mean over seeds: `all`, and of each expert those of the phases that move anything of it."""
    row = next(row for row in study.rows if row.name == name)
    phases = study.run(row, study.config.study.seeds[0]).method.phases
    found: dict[str, float] = {}
    for phase in phases:
        steps = float(np.mean([r["phases"][phase.name].get("updates", np.nan) for r in group.results]))
        if np.isnan(steps):  # made by an earlier version
            return {}
        for key in ("all", *phase.moves):
            found[key] = found.get(key, 0.0) + steps
    return found


def best_baseline(groups: dict[str, RunGroup]) -> str:
    """The method with the highest nDCG@10 on validation that is not PAD, with MMD or without; or an empty string."""
    rivals = [name for name in groups if name not in ("pad", WITHOUT_MMD)]
    return max(rivals, key=lambda name: groups[name].valid()) if rivals else ""


def claims(groups: dict[str, RunGroup], baselines: dict[str, float]) -> list[Claim]:
    """The paper's statements about Table 2. `baselines` are nDCG@10 in percent of scorers that do not learn."""
    first = above("PAD is ahead of every baseline, p < 0.05 (Table 2)", groups, ["pad"], list(TABLE_2), "nDCG@10")
    if first.verdict != UNTESTED:
        best = best_baseline({name: groups[name] for name in TABLE_2})
        p = paired_t_test(groups["pad"].per_user("nDCG@10"), groups[best].per_user("nDCG@10"))
        seeds = [100 * (a["test"]["nDCG@10"] - b["test"]["nDCG@10"]) for a, b in groups["pad"].pairs(groups[best])]
        first = first._replace(
            found=f"{first.found}; against {shown(best)} p {chance(p)}, least difference of a seed {min(seeds):+.2f}. "
            f"Not in the paper: {', '.join(f'{name} {value:.2f}' for name, value in baselines.items())}"
        )
    found = [first]
    paper = "PAD is above SMEM in nDCG@10: +1.51 % on MIND, +7.60 % on Electronics, +9.54 % on Prime Pantry"
    smem = above(paper, groups, ["pad"], ["smem"], "nDCG@10")
    if smem.verdict != UNTESTED:
        means = [groups[name].mean("all", "nDCG@10") for name in ("pad", "smem")]
        smem = smem._replace(found=f"{gain(means[0], means[1]):+.2f} %; {smem.found}")
    found.append(smem)
    paper = "PAD's gain over SASRec grows as items get colder (+63 %, +202 % and +463 % of nDCG@10 on Electronics)"
    if not {"pad", "sasrec"} <= set(groups):
        return [*found, Claim(paper, "not run: pad or sasrec", UNTESTED)]
    if differ_by_minutes(groups["pad"].lengths, groups["sasrec"].lengths):
        return [*found, Claim(paper, cut_by_minutes("pad", "sasrec"), UNTESTED)]
    users = ("warm", "median", "cold")
    lifts = [gain(*(groups[name].mean(g, "nDCG@10") for name in ("pad", "sasrec"))) for g in users]
    listed = ", ".join(f"{percent(lift)} {g}" for g, lift in zip(users, lifts, strict=True))
    return [*found, Claim(paper, listed, judged(lifts[0] < lifts[1] < lifts[2], lifts))]
