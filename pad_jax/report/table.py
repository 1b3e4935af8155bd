"""The table of a finished run, for the terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pad_jax.evaluation import popularity
from pad_jax.report.markdown import plain, row

GROUPS = ("all", "warm", "median", "cold", "unseen")
LABELS = {
    "popularity": "popularity",
    "counts": "next-item counts",
    "text_cosine": "text cosine to the last item",
    "whitened": "whitened text of the history",
    "words": "tf-idf of the history",
    "counts_whitened": "counts + whitened",
    "counts_whitened_words": "counts + whitened + tf-idf",
    "markov": "markov (last item -> next)",  # these two are of versions before 0.5
    "markov_text": "markov + text cosine",
}

#: Methods that are shown under another name than the one they are chosen by.
METHOD_LABELS = {"disco": "chunks + CLUB (after DisCo)", "moc": "codes (after Mixture-of-Codes)"}


def shown(name: str) -> str:
    """What a row of a page is called."""
    return METHOD_LABELS.get(name, name)


def number(value: float) -> str:
    """With two decimals; `-` for none."""
    return "-" if np.isnan(value) else f"{value:.2f}"


def percent(value: float) -> str:
    """With two decimals and its unit; `-` for none."""
    return "-" if np.isnan(value) else f"{value:.2f} %"


Rows = list[tuple[str, Mapping[str, Any] | None]]


def rows(results: Mapping[str, Any], split: str, beside: Sequence[Mapping[str, Any]] = ()) -> Rows:
    """(label, metrics) of every phase, last first, of those of runs `beside` it, and then of the baselines."""
    table = [row for run in (results, *beside) for row in _phases(run, split)]
    return table + [(LABELS[name], metrics and metrics[split]) for name, metrics in results["baselines"].items()]


def _phases(results: Mapping[str, Any], split: str) -> Rows:
    method, backbone = results["method"], results["backbone"]
    table: Rows = []
    for name, phase in reversed(results["phases"].items()):
        last = name == list(results["phases"])[-1]
        title = shown(method)
        label = f"{title} ({name})" if last else f"{title}, phase {name}"
        if name == "pretrain" and method in ("sasrec", "smem", "staged", "pad"):
            label = f"{backbone}, IDs only" + ("" if method == "sasrec" else f" ({method}'s phase 1)")
        beta = popularity.beta_of(phase)
        table.append((f"{label}, popularity {beta:+.3g}" if beta else label, phase[split]))
    return table


def cells(metrics: Mapping[str, Any] | None) -> list[str]:
    """ "HR@10 nDCG@10" in percent for all users and each group; `-` where there is nothing."""
    if metrics is None:
        return ["-"] * len(GROUPS)
    groups = [metrics, *(metrics["by_frequency"][g] for g in GROUPS[1:])]
    return ["-" if g["HR@10"] is None else f"{100 * g['HR@10']:5.2f} {100 * g['nDCG@10']:5.2f}" for g in groups]


def header(results: Mapping[str, Any], split: str) -> list[str]:
    """Column titles with the number of users of each group."""
    for _, metrics in rows(results, split):
        if metrics is not None:
            users = [metrics["users"], *(metrics["by_frequency"][g]["users"] for g in GROUPS[1:])]
            return [f"{group} ({count:,})" for group, count in zip(GROUPS, users, strict=True)]
    return list(GROUPS)


def as_text(results: Mapping[str, Any], split: str = "test", beside: Sequence[Mapping[str, Any]] = ()) -> str:
    """Aligned columns for a terminal or a log; see `rows`."""
    titles = header(results, split)
    body = [(label, cells(metrics)) for label, metrics in rows(results, split, beside)]
    width = max(len(label) for label, _ in body)
    columns = [max(11, *map(len, column)) for column in zip(titles, *(values for _, values in body), strict=True)]

    def line(label: str, values: Sequence[str]) -> str:
        return f"{label:<{width}}  " + "  ".join(f"{v:>{w}}" for v, w in zip(values, columns, strict=True))

    title = f"{results['dataset']}, {split}: HR@10 nDCG@10 in percent, by how often training met the target"
    return "\n".join([title, line("", titles), *(line(label, values) for label, values in body)])


#: Metrics of lists: name -> title, and what the value in results is multiplied by.
OF_LISTS = {
    "coverage": ("coverage, %", 100),
    "Gini": ("Gini", 1),
    "novelty": ("novelty, bits", 1),
    "popularity": ("popularity, events", 1),
    "diversity": ("diversity", 1),
    "recall": ("recall, %", 100),
    "precision": ("precision, %", 100),
    "MAP": ("MAP, %", 100),
}


def of_lists(metrics: Sequence[Mapping[str, Any]], k: int = 10) -> dict[str, str]:
    """Title and value of each metric of lists that some results have, a mean over them; `-` for none."""
    found = {}
    for name, (title, factor) in OF_LISTS.items():
        values = [m[f"{name}@{k}"] for m in metrics if f"{name}@{k}" in m]
        if values:
            found[title] = "-" if None in values else number(factor * float(np.mean(values)))
    return found


def as_markdown(results: Mapping[str, Any], split: str = "test") -> str:
    """The same as a Markdown table."""
    lines = [["", *header(results, split)], ["---", *["---:"] * len(GROUPS)]]
    lines += [
        [label, *(cell.strip().replace("  ", " ").replace(" ", " / ") for cell in cells(metrics))]
        for label, metrics in rows(results, split)
    ]
    title = (
        f"HR@10 / nDCG@10 in percent on {results['dataset']}, {split} split, by how often training met the target "
        f"(method {results['method']}, backbone {results['backbone']}, loss {results['loss']}, recipe "
        f"{results['recipe']}, seed {results['seed']})"
    )
    found = [plain(title), "", *map(row, lines), ""]
    last_first = list(reversed(results["phases"].items()))
    shown = {label: of_lists([p[split]]) for (label, _), (_, p) in zip(rows(results, split), last_first, strict=False)}
    if all(shown.values()):
        titles = list(next(iter(shown.values())))
        found += ["The first ten of every user's list", "", row(["", *titles])]
        found += ["| --- |" + " ---: |" * len(titles)]
        found += [row([label, *values.values()]) for label, values in shown.items()]
        found.append("")
    return "\n".join(found)
