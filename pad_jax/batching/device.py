"""What training needs of a dataset, as arrays that stay on the device for a whole phase."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Int32

from pad_jax.console import say
from pad_jax.data.dataset import Dataset, ItemLists, frequency_buckets
from pad_jax.data.settings import DataSettings
from pad_jax.errors import UserError


class DeviceData(NamedTuple):
    """What stays on the device for a whole phase."""

    windows: Int[Array | np.ndarray, "rows W"]  # training prefixes, left-padded
    gaps: Int[Array | np.ndarray, " G"]  # see `gaps_of`; user by user
    gap_ends: Int[Array | np.ndarray, "rows 2"]  # where those of each row's user begin and end
    bucket: Int[Array | np.ndarray, " I"]
    counts: Int[Array | np.ndarray, " I"]  # training events of each item
    text: Float[Array | np.ndarray, "I E"]  # row 0 zeros; E = 0 when no expert reads text
    arrays: dict[str, Any] = {}  # noqa: RUF012 (never written to): what an expert of this name asks for


def gaps_of(met: ItemLists) -> Int32[np.ndarray, " G"]:
    """For the items s_1 < s_2 < .. of each list: s_j - j, the other items before s_j."""
    place = np.arange(len(met.values)) - np.repeat(met.starts[:-1], np.diff(met.starts))
    return (met.values - 1 - place).astype(np.int32)


def training_rows(
    dataset: Dataset, config: DataSettings, negatives: bool = True, met: ItemLists | None = None
) -> tuple[Int32[np.ndarray, "rows W"], Int[np.ndarray, " rows"]]:
    """`DeviceData.windows`, and whose they are, as places among `training_users`; a user's latest window comes first.

    With `negatives`, who has met all items is left out. `met` is `met_in_training`, where that is known.
    """
    windows, owner = dataset.train_windows(config.length, config.windows == "all")
    if not negatives:
        return windows, owner
    met_all = np.diff((dataset.met_in_training() if met is None else met).starts) == dataset.items
    if not met_all.any():
        return windows, owner
    return windows[~met_all[owner]], owner[~met_all[owner]]


def device_data(
    dataset: Dataset, config: DataSettings, text: Float[np.ndarray, "I E"] | None, negatives: bool = True
) -> DeviceData:
    """The arrays of a dataset that training needs; host arrays, to be placed by `parallel.replicate`.

    Args:
        dataset: what is trained on.
        config: how.
        text: vectors of the items; None where no expert reads them.
        negatives: whether the loss draws items that a user has not met; who has met all of them is left out then.

    Raises UserError when no training prefix has two events.
    """
    if not len(dataset.training_users):
        raise UserError(f"{dataset.name}: no user has two training events, of which one could predict the next")
    met = dataset.met_in_training()
    met_all = np.diff(met.starts) == dataset.items
    if text is None:
        text = np.zeros((dataset.items + 1, 0), np.float32)
    bucket, _ = frequency_buckets(dataset.counts, config.buckets)
    windows, owner = training_rows(dataset, config, negatives, met)
    ends = np.stack([met.starts[owner], met.starts[owner + 1]], axis=1).astype(np.int32)
    ends[met_all[owner], 1] = ends[met_all[owner], 0]  # nothing is outside; what is drawn is used by no loss
    if negatives and met_all.any():
        say(f"{dataset.name}: {met_all.sum():,} users have met all items and do not train: the loss draws other ones")
        if not len(windows):
            raise UserError(f"{dataset.name}: every user has met all {dataset.items} items; use config.loss=ce")
    return DeviceData(windows, gaps_of(met), ends, bucket, dataset.counts.astype(np.int32), text)
