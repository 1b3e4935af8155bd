"""Pictures of results; colours and marks that people who are colour-blind can tell apart."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

#: Okabe and Ito's colours, without the yellow, which is too light for lines.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "..", "xx", "--", "++", "oo")
LINES = (":", "--", "-.", "-")
plt.rcParams.update({"svg.hashsalt": "pad_jax", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})


def ranking_bars(
    names: Sequence[str], values: Mapping[str, Sequence[Sequence[float]]], lines: Mapping[str, Mapping[str, float]]
) -> Any:
    """One panel per metric: a horizontal bar per name, its seeds as strokes, and a line up for each of `lines`."""
    figure, axes = plt.subplots(1, len(values), figsize=(10, 0.42 * len(names) + 1.6), sharey=True, squeeze=False)
    for axis, (metric, seeds) in zip(axes[0], values.items(), strict=True):
        means = [float(np.mean(v)) for v in seeds]
        axis.barh(range(len(names)), means, color=COLOURS[0], height=0.6)
        for place, points in enumerate(seeds):
            axis.plot(points, [place] * len(points), "|", color="black", markersize=9)
        for number, (label, found) in enumerate(lines.items()):
            if metric in found:
                axis.axvline(found[metric], color=COLOURS[3], linestyle=LINES[number % len(LINES)], label=label)
        axis.set_xlabel(f"{metric}, %")
        axis.set_xlim(left=0)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    if lines:
        axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return _done(figure)


def differences(
    names: Sequence[str], values: Mapping[str, Sequence[tuple[float, float, float]]], reference: str
) -> Any:
    """One panel per metric: for every name its difference to `reference`, (mean, low, high) in points."""
    figure, axes = plt.subplots(1, len(values), figsize=(10, 0.42 * len(names) + 1.3), sharey=True, squeeze=False)
    for axis, (metric, intervals) in zip(axes[0], values.items(), strict=True):
        mean, low, high = np.array(intervals).T
        axis.axvline(0, color="black", linewidth=1)
        axis.errorbar(mean, range(len(names)), xerr=[mean - low, high - mean], fmt="o", color=COLOURS[0], capsize=3)
        axis.locator_params("x", nbins=6)
        axis.set_xlabel(f"{metric} minus that of {reference}, points")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return _done(figure)


def grouped_bars(groups: Sequence[str], series: Mapping[str, Sequence[float]], ylabel: str) -> Any:
    """Bars of each of `series` side by side for every group."""
    figure, axis = plt.subplots(figsize=(1.6 + 1.5 * len(groups), 3.4))
    width = 0.8 / len(series)
    for number, (label, values) in enumerate(series.items()):
        place = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        style: dict[str, Any] = {"color": COLOURS[number], "hatch": HATCHES[number], "edgecolor": "white"}
        bars = axis.bar(place, values, width, label=label, **style)
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axis.set_xticks(range(len(groups)), groups)
    axis.set_ylabel(ylabel)
    axis.legend(frameon=False)
    return _done(figure)


def curves(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    xlabel: str,
    ylabel: str,
    dashed: Mapping[str, Sequence[float]] | None = None,
    columns: int = 2,
) -> Any:
    """A panel for each entry, a line with marks for each of its series over 1, 2, ..; `dashed` ones beside them."""
    rows = -(-len(panels) // columns)
    columns = min(columns, len(panels))
    figure, axes = plt.subplots(rows, columns, figsize=(5.2 * columns, 3.2 * rows), sharex=True, squeeze=False)
    for axis, (title, series) in zip(axes.flat, panels.items(), strict=False):
        for number, (label, values) in enumerate(series.items()):
            x = 1 + np.arange(len(values))
            axis.plot(x, values, color=COLOURS[number], marker=MARKS[number], label=label)
            if dashed:
                axis.plot(x, dashed[label], "--", color=COLOURS[number], linewidth=1)
        axis.set_title(title, fontsize=10, pad=22)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series))
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    return _done(figure)


def learning_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[Sequence[float], int]]]], ylabel: str, columns: int = 3
) -> Any:
    """A panel for each run: over its epochs, one phase behind the other, a line for each phase and seed; the best epoch
    of each has a mark."""
    rows, columns = -(-len(panels) // columns), min(columns, len(panels))
    figure, axes = plt.subplots(rows, columns, figsize=(max(3.4 * columns, 5), 2.5 * rows), squeeze=False)
    phases = list(dict.fromkeys(phase for curves in panels.values() for phase in curves))
    for axis, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        begin = 0
        for phase, seeds in curves.items():
            number = phases.index(phase)
            for values, best in seeds:
                x = begin + 1 + np.arange(len(values))
                axis.plot(x, values, color=COLOURS[number], linestyle=LINES[-1 - number % len(LINES)], linewidth=1)
                axis.plot(begin + best, values[best - 1], MARKS[number], color=COLOURS[number], markersize=4)
            begin += max(len(values) for values, _ in seeds)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.set_ylabel(ylabel, fontsize=8)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    handles = [
        plt.Line2D([], [], color=COLOURS[n], marker=MARKS[n], linestyle=LINES[-1 - n % len(LINES)], label=phase)
        for n, phase in enumerate(phases)
    ]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    return _done(figure)


def trade_off(panels: Mapping[str, Mapping[str, tuple[np.ndarray, int]]], dashed: Collection[str]) -> Any:
    """A panel for each entry, y being of the users that it names: a line [G, 2] of each scorer with a small dot at each
    point and a large mark at one; those in `dashed` are grey."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure, axes = plt.subplots(1, len(panels), figsize=(5.8 * len(panels), 5.4), sharex=True, squeeze=False)
    lines_of, marks_of = {}, {}
    for number, name in enumerate(sorted(names, key=lambda name: name in dashed)):
        baseline = name in dashed
        again, place = divmod(number - baseline * (len(names) - len(set(dashed) & set(names))), len(COLOURS))
        colour = "#808080" if baseline else COLOURS[place]
        face = "white" if baseline or again else colour  # a second round of colours has open marks
        style = "--" if baseline else ("-", "-.", ":")[again % 3]
        lines_of[name] = {"color": colour, "linestyle": style, "linewidth": 1.0 if baseline else 1.6}
        marks_of[name] = {"color": colour, "marker": MARKS[place], "markerfacecolor": face, "markersize": 8}
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for name, (points, zero) in lines.items():
            above = 2 if name in dashed else 3
            axis.plot(*points.T, marker=".", markersize=4, zorder=above, **lines_of[name])
            axis.plot(*points[zero], linestyle="", zorder=2 + above, clip_on=False, **marks_of[name])
        axis.set_xlabel("nDCG@10 of warm items, %")
        axis.set_ylabel(f"nDCG@10 of {title} items, %")
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
    handles = [plt.Line2D([], [], label=name, **(marks_of[name] | lines_of[name])) for name in lines_of]
    legend = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "alignment": "left"}
    figure.legend(handles=handles, title="mark: beta 0", **legend)
    return _done(figure)


def distributions(panels: Mapping[str, Mapping[str, np.ndarray]], xlabel: str, columns: int = 4, bins: int = 80) -> Any:
    """A panel for each entry: outlined histograms of its samples, as densities."""
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.1 * columns, 2.5 * rows), squeeze=False)
    for axis, (title, samples) in zip(axes.flat, panels.items(), strict=False):
        values = np.concatenate(list(samples.values()))
        if not len(values):
            axis.set_visible(False)
            continue
        edges = np.linspace(values.min(), values.max() + 1e-9, bins + 1)
        for number, (label, sample) in enumerate(samples.items()):
            line = ("-", "--", ":")[number % 3]
            axis.hist(sample, edges, density=True, histtype="step", label=label, color=COLOURS[number], linestyle=line)
        axis.set_title(title, fontsize=9)
        axis.set_yticks([])
        axis.set_xlabel(xlabel, fontsize=8)
    drawn = [axis for axis in axes.flat if axis.has_data()]
    for axis in drawn[:1]:
        axis.legend(frameon=False, fontsize=7)
    return _done(figure)


def _done(figure: Any) -> Any:
    figure.tight_layout()
    plt.close(figure)  # drawn when it is saved; no window keeps it
    return figure
