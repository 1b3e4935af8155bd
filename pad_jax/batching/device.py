"""What training needs of a dataset, as arrays that stay on the device for a whole phase."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Int32

from pad_jax.data.dataset import Dataset, frequency_buckets
from pad_jax.errors import UserError


class DeviceData(NamedTuple):
    """What stays on the device for a whole phase."""

    windows: Int[Array | np.ndarray, "train W"]  # training prefixes, left-padded
    gaps: Int[Array | np.ndarray, "train H"]  # see `history_gaps`
    bucket: Int[Array | np.ndarray, " I"]
    counts: Int[Array | np.ndarray, " I"]  # training events of each item
    text: Float[Array | np.ndarray, "I E"]  # row 0 zeros; E = 0 when no expert reads text
    arrays: dict[str, Any] = {}  # noqa: RUF012 (never written to): what an expert of this name asks for


def history_gaps(history: Int32[np.ndarray, "U H"], items: int) -> Int32[np.ndarray, "U H"]:
    """For the distinct items s_1 < s_2 < .. of each row: s_j - j, the other items before s_j; padded with N."""
    ordered = np.sort(history, axis=1)
    new = np.ones(ordered.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    new &= ordered > 0
    gaps = np.where(new, ordered - np.cumsum(new, axis=1), items)
    return np.sort(gaps, axis=1).astype(np.int32)


def device_data(dataset: Dataset, length: int, buckets: int, text: Float[np.ndarray, "I E"] | None) -> DeviceData:
    """The arrays of a dataset that training needs; host arrays, to be placed by `parallel.replicate`.

    Raises UserError when a user's training prefix holds every item, or when no prefix has two events.
    """
    if not len(dataset.training_users):
        raise UserError(f"{dataset.name}: no user has two training events, of which one could predict the next")
    gaps = history_gaps(dataset.train_prefixes(), dataset.items)
    met_all = np.flatnonzero((gaps < dataset.items).sum(axis=1) == dataset.items)
    if len(met_all):
        user = dataset.user_ids[dataset.training_users[met_all[0]]]
        raise UserError(f"{dataset.name}: user {user} has met all {dataset.items} items before the last two")
    if text is None:
        text = np.zeros((dataset.items + 1, 0), np.float32)
    bucket, _ = frequency_buckets(dataset.counts, buckets)
    return DeviceData(dataset.train_windows(length), gaps, bucket, dataset.counts.astype(np.int32), text)
