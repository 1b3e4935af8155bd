"""Events and a catalogue become a Dataset: filters, order, numbers, splits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int64, Shaped

from pad_jax.data.dataset import Cuts, Dataset, leave_one_out
from pad_jax.data.tables import Cut, as_number
from pad_jax.errors import UserError
from pad_jax.settings import Config


class Events(NamedTuple):
    """Who met what when, in file order.

    `frame` has the columns `user`, `item` (strings) and, unless they stand in order of time, `time` (numbers, larger
    is later). `cut` turns a value of `config.data.time` into such a number, `shown` such a number into the value.
    `read` is the number of rows that were read, `out` says which of them are no events, and why; `users` are all who
    were read of, those without an event among them.
    """

    frame: pl.DataFrame
    cut: Cut | None = None
    shown: Callable[[Any], str | int | float | None] = as_number
    read: int | None = None
    out: tuple[str, ...] = ()
    users: pl.Series | None = None


def histories_of(events: Events) -> pl.DataFrame:
    """(user, history) of everyone who was read of, in order of the ids; a history has the item ids, oldest first."""
    by = ["user", "time"] if "time" in events.frame.columns else ["user"]
    users = (events.frame["user"] if events.users is None else events.users).unique().to_frame("user")
    found = events.frame.sort(by, maintain_order=True).group_by("user", maintain_order=True).agg(history="item")
    return users.join(found, on="user", how="left").sort("user").with_columns(pl.col("history").fill_null([]))


def histories_in(dataset: Dataset) -> pl.DataFrame:
    """`histories_of` the events of a dataset, in the order of its users."""
    items = pl.Series(["", *dataset.item_ids], dtype=pl.String).gather(dataset.events)
    rows = np.repeat(np.arange(dataset.users), np.diff(dataset.starts))
    found = pl.DataFrame({"row": rows, "item": items}).group_by("row", maintain_order=True).agg(history="item")
    users = pl.DataFrame({"user": pl.Series(list(dataset.user_ids), dtype=pl.String)}).with_row_index("row")
    users = users.with_columns(pl.col("row").cast(pl.Int64)).join(found, on="row", how="left", maintain_order="left")
    return users.select("user", pl.col("history").fill_null([]))


def assemble(config: Config, events: Events, catalogue: pl.DataFrame, only_met: bool, note: str = "") -> Dataset:
    """The dataset of `events` over the items of `catalogue`.

    Events of other items are left out. Users stand in order of their ids, a user's events in order of time, equal times
    in file order. Items are numbered from 1 in the order of the catalogue. Without `data.time` the events of each user
    are split by leave-one-out, with it by `split_by_time`.

    With `data.whole` nobody else is left out: users with fewer than `data.min_events` events have no targets, and
    events before the latest `data.keep` are masked and no more. Without it neither is part of the dataset.

    Args:
        config: the run's.
        events: who met what when.
        catalogue: columns `item`, `title` (what lists show) and `text` (what is encoded), an item once.
        only_met: leave items out that no event names.
        note: one line that is printed whenever the dataset is used.

    Raises UserError when nothing is left.
    """
    name, data = config.dataset, config.data
    numbered = catalogue.lazy().select("item", number=pl.int_range(1, pl.len() + 1, dtype=pl.Int32))
    known = events.frame.lazy().join(numbered, on="item", how="inner", maintain_order="left").drop("item").collect()
    out = [*events.out, _told(events.frame.height - known.height, "of items that are not in the catalogue")]
    by = ["user", "time"] if "time" in known.columns else ["user"]
    found = known["user"].n_unique()
    enough = known.lazy() if data.whole else known.lazy().filter(pl.len().over("user") >= data.min_events)
    ordered = enough.sort(by, maintain_order=True).collect()
    del known
    names, lengths = (ordered["user"].rle().struct.field(field) for field in ("value", "len"))
    if not (lengths >= data.min_events).any():
        raise UserError(
            f"{name}: no user has {data.min_events} events of items in the catalogue; lower "
            "--config.data.min_events, or see that events and catalogue have the same item ids"
        )
    users = names
    counts = lengths.to_numpy().astype(np.int64)
    if data.whole:
        users = (events.frame["user"] if events.users is None else events.users).unique().sort()
        counts = np.zeros(len(users), np.int64)
        counts[users.search_sorted(names)] = lengths.to_numpy()
    starts = np.concatenate([[0], np.cumsum(counts)])
    items = ordered["number"].to_numpy()
    if data.time:
        cuts = split_by_time(config, events, ordered, starts)
    else:
        cuts = leave_one_out(starts, data.min_events, data.keep)
    until = events.shown(ordered["time"].max()) if "time" in ordered.columns else None
    if not data.whole:
        out.append(_told(int((cuts.first - starts[:-1]).sum()), f"before the latest {data.keep} of a user (data.keep)"))
        keep = np.arange(len(items)) >= np.repeat(cuts.first, np.diff(starts))
        before = np.concatenate([[0], np.cumsum(keep)])
        items, starts = items[keep], before[starts]
        cuts = Cuts(*(np.where(x < 0, -1, before[x]) for x in cuts))
        out.append(_told(found - len(users), f"users with fewer than {data.min_events} events (data.min_events)"))
    if only_met:
        met, items = np.unique(items, return_inverse=True)
        out.append(_told(catalogue.height - len(met), "items that no event names"))
        catalogue = catalogue[met - 1]
        items = items + 1
    read = "" if events.read is None else f"{events.read:,} events read, "
    parts = ("not used", out), ("users", _without_targets(config, counts, cuts) if data.whole else [])
    account = [f"{what}: {', '.join(filter(None, told))}" for what, told in parts if any(told)]
    titles, texts = catalogue["title"].to_list(), catalogue["text"].to_list()
    return Dataset(
        name,
        catalogue["item"].to_list(),
        titles,
        users.to_list(),
        items.astype(np.int32),
        starts,
        cuts,
        note,
        own_texts=[] if texts == titles else texts,
        account="; ".join([f"{read}{len(items):,} kept", *account]),
        until=until,
    )


def _told(count: int, what: str) -> str:
    return f"{count:,} {what}" if count else ""


def _without_targets(config: Config, counts: Int64[np.ndarray, " U"], cuts: Cuts) -> list[str]:
    """What becomes of users without a target."""
    least = config.data.min_events
    trains = cuts.train_end - cuts.first >= 2
    aimed = (cuts.valid > cuts.first) | (cuts.test > cuts.first)
    few, several = counts < least, counts > 1
    kinds = {
        f"with fewer than {least} events (data.min_events) train and have no target": trains & ~aimed & few,
        "without an event behind a cut (data.time) train and have no target": trains & ~aimed & ~few,
        "with one event before a cut (data.time) have a target and do not train": ~trains & aimed,
        "with events behind the cuts (data.time) alone are listed only": ~trains & ~aimed & several,
        "with one event are listed only": counts == 1,
        "without an event get what is popular": counts == 0,
    }
    return [_told(int(users.sum()), what) for what, users in kinds.items()]


def split_by_time(config: Config, events: Events, ordered: pl.DataFrame, starts: Int64[np.ndarray, " _"]) -> Cuts:
    """Training sees events before t_valid alone; a user's targets are the first events from each cut on.

    The validation target lies before t_test. Of the events before t_valid the latest `data.keep` - 2 of each user are
    used. Raises UserError without times, or for cuts that are not in order.
    """
    if events.cut is None or "time" not in ordered.columns:
        raise UserError(f"config.data.time={config.data.time} needs the times of events, and {config.dataset} has none")
    t_valid, t_test = (events.cut(value) for value in config.data.time)
    if not t_valid < t_test:
        raise UserError(f"config.data.time={config.data.time} must be (t_valid, t_test), the earlier first")
    time, begins, ends = ordered["time"].to_numpy(), starts[:-1], starts[1:]
    train_end, tested = (begins + _sum(time < cut, starts) for cut in (t_valid, t_test))
    enough = ends - begins >= config.data.min_events
    first = begins
    if config.data.keep:
        first = np.maximum(begins, train_end - max(config.data.keep - 2, 1))
    valid = np.where(enough & (train_end < tested), train_end, -1)
    return Cuts(first, train_end, valid, np.where(enough & (tested < ends), tested, -1))


def _sum(values: Shaped[np.ndarray, " M"], starts: Int64[np.ndarray, " _"]) -> Int64[np.ndarray, " U"]:
    """The sum of each user's values."""
    return np.diff(np.concatenate([[0], np.cumsum(values)])[starts])
