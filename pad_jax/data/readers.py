"""Readers: from the raw files of a dataset to a `Dataset`, one for each raw format."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int

from pad_jax.console import say
from pad_jax.data.assemble import Events
from pad_jax.data.dataset import SPLITS, Dataset, frequency_buckets, frequency_group
from pad_jax.errors import UserError
from pad_jax.registry import Registry
from pad_jax.settings import Config, check_choice, with_fields


class Reader(NamedTuple):
    """How a dataset is read.

    `load` takes the configuration; `timed` says whether events have times, which `data.time` needs; `known` are the
    number of items and the ranks by training count at which the frequency buckets end, where others have published
    them. `defaults` are values of settings, by dotted names, that this reader has instead of the general ones.
    `events` and `catalogue` (item, title, text) give what the files hold today, whatever items events name, for a
    model that is trained.
    """

    load: Callable[[Config], Dataset]
    timed: bool = True
    known: tuple[int, list[int]] | None = None
    defaults: Mapping[str, Any] = {}
    events: Callable[[Config], Events] | None = None
    catalogue: Callable[[Config], pl.DataFrame] | None = None


READERS: Registry[Reader] = Registry("reader", "data.reader")
LENGTHS = (20, 50)  # of which `data.length` is chosen where it is 0: longer ones did not pay: docs/results.md


def reader_name(config: Config) -> str:
    """`config.data.reader`, or the dataset's name where that is empty."""
    return config.data.reader or config.dataset


def load(config: Config) -> Dataset:
    """The dataset of a configuration, with `data.holdout` or without."""
    name = reader_name(config)
    check_choice("data.reader" if config.data.reader else "dataset", name, READERS)
    reader = READERS[name]
    if config.data.time and not reader.timed:
        raise UserError(f"config.data.time={config.data.time} needs the times of events, and {name} has none")
    dataset = reader.load(config)
    return dataset if config.data.holdout else dataset.without_holdout()


def settled(config: Config, dataset: Dataset) -> Config:
    """The configuration with `data.length` as a number: 0 becomes the first of `LENGTHS` that holds all training events
    of every other user, or the last."""
    if config.data.length:
        return config
    events = (dataset.cuts.train_end - dataset.cuts.first)[dataset.training_users]
    wanted = np.median(events) if len(events) else 0
    length = next((n for n in LENGTHS if n >= wanted), LENGTHS[-1])
    say(
        f"data.length {length}, chosen from the data: half of the users have at most {wanted:.0f} training events; "
        "--config.data.length=N sets it"
    )
    return with_fields(config, {"data.length": length})


def _groups(counts: Int[np.ndarray, " X"]) -> str:
    """How many there are that training met often, .., never."""
    return ", ".join(f"{mask.sum():,} {name}" for name, mask in frequency_group(counts).items())


def summary(dataset: Dataset, config: Config) -> str:
    """What a dataset holds, and for the paper's the numbers that are known of it beside those found."""
    _, cuts = frequency_buckets(dataset.counts, config.data.buckets)
    events = np.diff(dataset.starts)
    targets = {name: dataset.counts[dataset.split(name, 1).target] for name in SPLITS}
    lines = [
        f"events of a user: {events.min()} to {events.max()}, median {np.median(events):g}",
        f"training events: {dataset.counts.sum():,}; items: {_groups(dataset.counts[1:])}",
        *(f"{name} targets: {len(met):,}; {_groups(met)}" for name, met in targets.items()),
        f"items: {dataset.items}; ends of the frequency buckets: {', '.join(map(str, cuts))}",
    ]
    known = READERS[config.dataset].known if config.dataset in READERS else None
    if known:
        same = known == (dataset.items, cuts) and "the same"
        lines.append(f"known: {known[0]}; {', '.join(map(str, known[1]))}: {same or 'not the same data'}")
    return "\n".join(lines)
