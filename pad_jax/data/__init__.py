"""Datasets: one reader per raw format."""

from collections.abc import Callable

import numpy as np

from pad_jax.config import Config, check_choice
from pad_jax.data import amazon, demo, mind, pantry, table
from pad_jax.data.dataset import SPLITS, Dataset, frequency_buckets, frequency_group
from pad_jax.errors import UserError

#: The readers by name; another one is an entry more.
READERS: dict[str, Callable[[Config], Dataset]] = {
    "demo": demo.load,
    "pantry": pantry.load,
    "mind": mind.load,
    "electronics": amazon.load,
    "table": table.load,
}
#: Readers of events without times.
UNTIMED = ("demo", "pantry")
#: Items, and the ranks by training count at which the frequency buckets end, of the paper's data (official code).
KNOWN = {
    "mind": (79707, [41, 127, 276, 517, 889, 1467, 2413, 4070, 7618]),
    "electronics": (423191, [233, 856, 2090, 4327, 8214, 14950, 27012, 50742, 109145]),
    "pantry": (8347, [35, 100, 205, 361, 585, 898, 1357, 2074, 3348]),
}


def load(config: Config) -> Dataset:
    """The dataset of `config.data.reader`, or of `config.dataset` where that is empty."""
    name = config.data.reader or config.dataset
    check_choice("data.reader" if config.data.reader else "dataset", name, READERS)
    if config.data.time and name in UNTIMED:
        raise UserError(f"config.data.time={config.data.time} needs the times of events, and {name} has none")
    return READERS[name](config)


def summary(dataset: Dataset, buckets: int) -> str:
    """What a dataset holds, and for the paper's the numbers that are known of it beside those found."""
    _, cuts = frequency_buckets(dataset.counts, buckets)
    events = np.diff(dataset.starts)
    groups = {name: int(mask.sum()) for name, mask in frequency_group(dataset.counts[1:]).items()}
    lines = [
        f"events of a user: {events.min()} to {events.max()}, median {np.median(events):g}",
        f"training events: {dataset.counts.sum():,}; items: " + ", ".join(f"{n:,} {g}" for g, n in groups.items()),
        *(f"{name} targets: {len(dataset.split(name, 1).target):,}" for name in SPLITS),
        f"items: {dataset.items}; ends of the frequency buckets: {', '.join(map(str, cuts))}",
    ]
    known = KNOWN.get(dataset.name)
    if known:
        same = known == (dataset.items, cuts) and "the same"
        lines.append(f"known: {known[0]}; {', '.join(map(str, known[1]))}: {same or 'not the same data'}")
    return "\n".join(lines)
