"""What training needs of a dataset, as arrays that stay on the device for a whole phase."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Int32

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


def device_data(dataset: Dataset, config: DataSettings, text: Float[np.ndarray, "I E"] | None) -> DeviceData:
    """The arrays of a dataset that training needs; host arrays, to be placed by `parallel.replicate`.

    Raises UserError when a user's training prefix holds every item, or when no prefix has two events.
    """
    if not len(dataset.training_users):
        raise UserError(f"{dataset.name}: no user has two training events, of which one could predict the next")
    met = dataset.met_in_training()
    met_all = np.flatnonzero(np.diff(met.starts) == dataset.items)
    if len(met_all):
        user = dataset.user_ids[dataset.training_users[met_all[0]]]
        raise UserError(f"{dataset.name}: user {user} has met all {dataset.items} items before the last two")
    if text is None:
        text = np.zeros((dataset.items + 1, 0), np.float32)
    bucket, _ = frequency_buckets(dataset.counts, config.buckets)
    windows, owner = dataset.train_windows(config.length, config.windows == "all")
    ends = np.stack([met.starts[owner], met.starts[owner + 1]], axis=1).astype(np.int32)
    return DeviceData(windows, gaps_of(met), ends, bucket, dataset.counts.astype(np.int32), text)
