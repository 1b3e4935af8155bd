"""Compares finished runs:  python -m pad_jax.report WORKDIR... [--against WORKDIR...]

Prints Markdown: a row per group of runs (the seeds of one configuration are one row, mean and standard deviation), the
baselines that hardly learn, and the difference between the first runs and those behind --against with a bootstrap
interval over users. --page=FILE.html also draws it, with the learning curves of every phase.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from pad_jax import boundary
from pad_jax.console import show
from pad_jax.data.dataset import frequency_group
from pad_jax.errors import UserError
from pad_jax.evaluation.significance import bootstrap_interval
from pad_jax.report.groups import METRICS, RunGroup
from pad_jax.report.markdown import row
from pad_jax.report.page import Page, add_curves, add_trade_off
from pad_jax.report.table import GROUPS, LABELS, cells, header


def report(first: list[Path], second: list[Path]) -> str:
    """Markdown for one or two groups of runs."""
    groups = groups_of(first, second)
    results = groups[0].results[0]
    if len({group.dataset for group in groups}) > 1:
        raise UserError(f"{first[0]} and {second[0]} were made from different data; they cannot be compared")
    lines = [
        f"Test split of {results['dataset']}, HR@10 / nDCG@10 in percent",
        "",
        row(["", *header(results, "test")]),
        "| --- |" + " ---: |" * len(GROUPS),
    ]
    lines += [row([group.label, *group.row()]) for group in groups]
    for name, metrics in results["baselines"].items():
        values = [" / ".join(cell.split()) for cell in cells(metrics and metrics["test"])]
        lines.append(row([LABELS[name], *values]))
    if len(groups) > 1:
        lines += ["", f"{groups[0].name} minus {groups[1].name}, points, with a 95 % bootstrap interval over users", ""]
        lines += ["| | HR@10 | nDCG@10 |", "| --- | ---: | ---: |"]
        masks = _group_masks(first[0])
        differences = {m: groups[0].per_user(m) - groups[1].per_user(m) for m in METRICS}
        for name, mask in masks.items():
            if not mask.any():
                continue
            found = []
            for difference in differences.values():
                mean, low, high = (100 * x for x in bootstrap_interval(difference[mask]))
                found.append(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]")
            lines.append(row([f"{name} ({mask.sum():,})", *found]))
    return "\n".join(lines)


def groups_of(first: list[Path], second: list[Path]) -> list[RunGroup]:
    """One or two groups; where both are called the same, their folders tell them apart."""
    groups = [RunGroup(paths) for paths in (first, second) if paths]
    if len({group.name for group in groups}) < len(groups):
        for group in groups:
            group.name, group.label = (f"{text}, {group.paths[0].name}" for text in (group.name, group.label))
    return groups


def draw(path: Path, text: str, groups: list[RunGroup]) -> None:
    """A page of what `report` says, with the learning curves of every phase."""
    page = Page(f"Runs on {groups[0].results[0]['dataset']}")
    for block in text.split("\n\n"):
        lines = [line.strip("| ").split(" | ") for line in block.splitlines()]
        if block.startswith("|"):
            page.table([""] * (len(lines[2]) - len(lines[0])) + lines[0], lines[2:])
        else:
            page.text(block)
    known = groups[0].results[0]["baselines"]
    baselines = {LABELS[name]: found["test"] for name, found in known.items() if found}
    add_trade_off(page, {group.label: group.metrics("all") for group in groups}, baselines)
    add_curves(page, {group.label: group for group in groups})
    page.write(path.parent, path.stem)


def _group_masks(workdir: Path) -> dict[str, np.ndarray]:
    """Which users belong to each group of GROUPS, and to cold and unseen together."""
    counts = RunGroup.ranks(workdir, "target_count").astype(int)
    masks = {"all": np.ones(len(counts), bool)} | frequency_group(counts)
    return masks | {"cold and unseen": masks["cold"] | masks["unseen"]}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pad_jax.report", description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path)
    parser.add_argument("--against", nargs="+", type=Path, default=[])
    parser.add_argument("--page", type=Path, help="FILE.html, where the same is drawn with learning curves")
    arguments = parser.parse_args(argv)

    def work() -> None:
        text = report(arguments.workdirs, arguments.against)
        show(text)
        if arguments.page:
            draw(arguments.page, text, groups_of(arguments.workdirs, arguments.against))

    return boundary.run(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
