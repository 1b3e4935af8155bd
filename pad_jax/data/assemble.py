"""Events and a catalogue become a Dataset: filters, order, numbers, splits."""

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64, Shaped

from pad_jax.console import say
from pad_jax.data.dataset import Cuts, Dataset, leave_one_out
from pad_jax.data.tables import Cut
from pad_jax.errors import UserError
from pad_jax.settings import Config


class Events(NamedTuple):
    """Who met what when, in file order.

    `frame` has the columns `user`, `item` (strings) and, unless they stand in order of time, `time` (numbers, larger
    is later). `cut` turns a value of `config.data.time` into such a number.
    """

    frame: pl.DataFrame
    cut: Cut | None = None


def assemble(config: Config, events: Events, catalogue: pl.DataFrame, only_met: bool, note: str = "") -> Dataset:
    """The dataset of `events` over the items of `catalogue` (columns `item` and `text`, an item once).

    Events of other items are dropped and counted, then users with fewer than `data.min_events`. Users stand in order
    of their ids, a user's events in order of time, equal times in file order. Items are numbered from 1 in the order
    of the catalogue.

    Args:
        config: the run's.
        events: who met what when.
        catalogue: items and their texts.
        only_met: leave items out that no event names.
        note: one line that is printed whenever the dataset is used.

    Without `data.time` the latest `data.keep` events of each user are split by leave-one-out, with it by
    `split_by_time`. Raises UserError when nothing is left.
    """
    name = config.dataset
    numbered = catalogue.lazy().select("item", number=pl.int_range(1, pl.len() + 1, dtype=pl.Int32))
    known = events.frame.lazy().join(numbered, on="item", how="inner", maintain_order="left").drop("item").collect()
    if known.height < events.frame.height:
        say(f"{name}: {events.frame.height - known.height:,} events dropped whose item is not in the catalogue")
    enough = known.lazy().filter(pl.len().over("user") >= config.data.min_events)
    by = ["user", "time"] if "time" in known.columns else ["user"]
    ordered = enough.sort(by, maintain_order=True).collect()
    del known
    if not ordered.height:
        raise UserError(
            f"{name}: no user has {config.data.min_events} events of items in the catalogue; lower "
            "--config.data.min_events, or see that events and catalogue have the same item ids"
        )
    users, lengths = (ordered["user"].rle().struct.field(field) for field in ("value", "len"))
    starts = np.concatenate([[0], np.cumsum(lengths.to_numpy(), dtype=np.int64)])
    items = ordered["number"].to_numpy()
    if config.data.time:
        keep, cuts = split_by_time(config, events, ordered, starts)
    else:
        keep = np.arange(len(items)) >= np.repeat(starts[1:] - config.data.keep, np.diff(starts))
        cuts = None
    before = np.concatenate([[0], np.cumsum(keep)])
    items, starts = items[keep], before[starts]
    cuts = leave_one_out(starts) if cuts is None else Cuts(*(np.where(x < 0, -1, before[x]) for x in cuts))
    if only_met:
        met, items = np.unique(items, return_inverse=True)
        catalogue = catalogue[met - 1]
        items = items + 1
    return Dataset(
        name,
        catalogue["item"].to_list(),
        catalogue["text"].to_list(),
        users.to_list(),
        items.astype(np.int32),
        starts,
        cuts,
        note,
    )


def split_by_time(
    config: Config, events: Events, ordered: pl.DataFrame, starts: Int64[np.ndarray, " _"]
) -> tuple[Bool[np.ndarray, " M"], Cuts]:
    """Training sees events before t_valid alone; a user's targets are the first events from each cut on.

    The validation target lies before t_test. Returns which of the `ordered` events are kept, the latest `data.keep` - 2
    of each user before t_valid and all from there on, and where the split is, before anything is left out. Raises
    UserError without times, or for cuts that are not in order.
    """
    if events.cut is None or "time" not in ordered.columns:
        raise UserError(f"config.data.time={config.data.time} needs the times of events, and {config.dataset} has none")
    t_valid, t_test = (events.cut(value) for value in config.data.time)
    if not t_valid < t_test:
        raise UserError(f"config.data.time={config.data.time} must be (t_valid, t_test), the earlier first")
    time, begins, ends = ordered["time"].to_numpy(), starts[:-1], starts[1:]
    train_end, tested = (begins + _sum(time < cut, starts) for cut in (t_valid, t_test))
    first = np.repeat(train_end - max(config.data.keep - 2, 1), np.diff(starts))
    valid, test = np.where(train_end < tested, train_end, -1), np.where(tested < ends, tested, -1)
    return np.arange(len(time)) >= first, Cuts(train_end, valid, test)


def _sum(values: Shaped[np.ndarray, " M"], starts: Int64[np.ndarray, " _"]) -> Int64[np.ndarray, " U"]:
    """The sum of each user's values; every user has one."""
    return np.add.reduceat(values.astype(np.int64), starts[:-1])
