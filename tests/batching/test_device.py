"""What training needs of a dataset."""

import pytest

from pad_jax.batching.device import device_data
from pad_jax.data.dataset import from_sequences
from pad_jax.data.settings import DataSettings
from pad_jax.errors import UserError


def test_a_user_who_has_met_every_item_is_an_error():
    dataset = from_sequences("made", ["x", "y", "z"], [""] * 3, ["a", "b"], [[1, 2, 1, 2], [3, 1, 2, 3, 1]])
    with pytest.raises(UserError, match="user b has met all 3 items"):
        device_data(dataset, DataSettings(length=3, buckets=2), None)
