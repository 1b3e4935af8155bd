"""Readers: from the raw files of a dataset to a `Dataset`, one for each raw format."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pad_jax.data.dataset import SPLITS, Dataset, frequency_buckets, frequency_group
from pad_jax.errors import UserError
from pad_jax.registry import Registry
from pad_jax.settings import Config, check_choice


class Reader(NamedTuple):
    """How a dataset is read.

    `load` takes the configuration; `timed` says whether events have times, which `data.time` needs; `known` are the
    number of items and the ranks by training count at which the frequency buckets end, where others have published
    them.
    """

    load: Callable[[Config], Dataset]
    timed: bool = True
    known: tuple[int, list[int]] | None = None


READERS: Registry[Reader] = Registry("reader", "data.reader")


def reader_name(config: Config) -> str:
    """`config.data.reader`, or the dataset's name where that is empty."""
    return config.data.reader or config.dataset


def load(config: Config) -> Dataset:
    """The dataset of a configuration."""
    name = reader_name(config)
    check_choice("data.reader" if config.data.reader else "dataset", name, READERS)
    reader = READERS[name]
    if config.data.time and not reader.timed:
        raise UserError(f"config.data.time={config.data.time} needs the times of events, and {name} has none")
    return reader.load(config)


def summary(dataset: Dataset, config: Config) -> str:
    """What a dataset holds, and for the paper's the numbers that are known of it beside those found."""
    _, cuts = frequency_buckets(dataset.counts, config.data.buckets)
    events = np.diff(dataset.starts)
    groups = {name: int(mask.sum()) for name, mask in frequency_group(dataset.counts[1:]).items()}
    lines = [
        f"events of a user: {events.min()} to {events.max()}, median {np.median(events):g}",
        f"training events: {dataset.counts.sum():,}; items: " + ", ".join(f"{n:,} {g}" for g, n in groups.items()),
        *(f"{name} targets: {len(dataset.split(name, 1).target):,}" for name in SPLITS),
        f"items: {dataset.items}; ends of the frequency buckets: {', '.join(map(str, cuts))}",
    ]
    known = READERS[config.dataset].known if config.dataset in READERS else None
    if known:
        same = known == (dataset.items, cuts) and "the same"
        lines.append(f"known: {known[0]}; {', '.join(map(str, known[1]))}: {same or 'not the same data'}")
    return "\n".join(lines)
