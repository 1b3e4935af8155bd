"""Seconds per epoch and peak memory as events and items grow, and what bends first.

Phase 1 (SASRec of 5 blocks, BCE, batch 128) over generated data, each case in a process of its own: a few blocks of
steps and the ranking of 1,024 and 2,048 users are timed and scaled to the epoch. Part `events` has 10^4 items and
D 128, part `items` 10^6 events and D 128, with dense and with lazy tables; part `lazy` is the step alone at D 32, one
block, up to 10^7 items. With --plot, a picture as well.
"""

import json
import time
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.harness import Report, arguments, in_own_process, in_turn, peak_mib, run
from benchmarks.problem import Ours, configuration, generated
from pad_jax.evaluation.ranking import ranker

RANKED = (1024, 2048)  # users of the validation split that are timed: what all of them share, and what each costs
WARM_UP = 40  # blocks before the step alone is timed: first touches of a large table's memory are slow

CASES = [
    *({"part": "events", "events": e, "items": 10**4, "tables": "dense"} for e in (10**5, 10**6, 10**7)),
    *(
        {"part": "items", "events": 10**6, "items": n, "tables": tables}
        for tables in ("dense", "lazy")
        for n in (10**4, 10**5, 10**6)
    ),
    *(
        {"part": "lazy", "events": 10**5, "items": n, "tables": tables}
        for tables in ("dense", "lazy")
        for n in (10**4, 10**5, 10**6, 10**7)
        if (tables, n) != ("dense", 10**7)
    ),
]


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--case", type=json.loads, help="one case, as this program calls itself")
    parser.add_argument("--parts", nargs="*", default=["events", "items", "lazy"])
    parser.add_argument("--plot", help="where to draw a picture (PNG, SVG or PDF)")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.rounds)))
        return
    columns = ("part", "tables", "events", "items", "prepare_s", "step_ms", "train_s", "rank_s", "peak_mib")
    with Report("growth", columns) as report:
        for case in CASES:
            if case["part"] in options.parts:
                report.add(**case, **in_own_process("benchmarks.growth", case, options.rounds))
        if options.plot:
            draw(report.lines, options.plot)


def measure(case: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Seconds to prepare, milliseconds per step, seconds of an epoch's training and ranking, and the peak of memory."""
    small = {"model__width": 32, "sasrec__blocks": 1} if case["part"] == "lazy" else {}
    config = configuration(train__steps_per_dispatch=8, optimizer__tables=case["tables"], **small)
    dataset = generated(case["events"], case["items"])
    started = time.perf_counter()
    ours = Ours(config, dataset, "pretrain", None)
    prepared = time.perf_counter() - started
    for _ in range(WARM_UP if small else 1):
        ours.steps()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        ours.steps()
        seconds.append(time.perf_counter() - started)
    step = float(np.median(seconds)) / ours.blocks.steps
    found = {"prepare_s": prepared, "step_ms": 1e3 * step, "train_s": step * ours.blocks.epoch_steps}
    if case["part"] != "lazy":
        whole = dataset.split("valid", config.data.length)
        rank = ranker(ours.scorer, config.eval.batch)
        few, many = (jax.tree.map(lambda x, n=n: x[:n], whole) for n in RANKED)
        turns = {"few": partial(rank, ours.state.params, ours.data, few)}
        turns["many"] = partial(rank, ours.state.params, ours.data, many)
        few_s, many_s = (float(np.median(s)) for s in in_turn(turns, rounds).values())
        each = (many_s - few_s) / (len(many.target) - len(few.target))
        found["rank_s"] = few_s + each * (dataset.users - len(few.target))
    return found | {"peak_mib": peak_mib()}


def draw(lines: list[dict[str, Any]], path: str) -> None:
    """Seconds and memory against events and items, and the step at D 32 against items; both axes logarithmic."""
    from matplotlib import pyplot

    panels = [
        ("events", "events", ("train_s", "rank_s"), "seconds per epoch"),
        ("items", "items", ("train_s", "rank_s"), "seconds per epoch"),
        ("items", "items", ("peak_mib",), "peak memory, MiB"),
        ("lazy", "items", ("step_ms",), "ms per step, D 32"),
    ]
    names = {"train_s": "training", "rank_s": "ranking", "peak_mib": "process", "step_ms": "step"}
    figure, axes = pyplot.subplots(1, len(panels), figsize=(15, 3.6), constrained_layout=True)
    for axis, (part, x, values, label) in zip(axes, panels, strict=True):
        for tables, style in (("dense", "-o"), ("lazy", "--s")):
            rows = [r for r in lines if (r["part"], r["tables"]) == (part, tables)]
            for value, colour in zip(values, ("C0", "C1"), strict=False):
                if rows:
                    name = f"{names[value]}, {tables} tables" if part != "events" else names[value]
                    axis.plot([r[x] for r in rows], [r[value] for r in rows], style, color=colour, label=name)
        axis.set(xscale="log", yscale="log", xlabel=x, ylabel=label)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run(main)
