"""What training needs of a dataset."""

import pytest

from pad_jax.batching.device import device_data
from pad_jax.data.dataset import from_sequences
from pad_jax.data.settings import DataSettings
from pad_jax.errors import UserError


def test_a_user_who_has_met_every_item_trains_where_no_other_item_is_drawn(capsys):
    users = [[1, 2, 1, 2], [3, 1, 2, 3, 1]]
    dataset = from_sequences("made", ["x", "y", "z"], [""] * 3, ["a", "b"], users)
    settings = DataSettings(length=3, buckets=2)
    assert len(device_data(dataset, settings, None, negatives=False).windows) == 2
    assert device_data(dataset, settings, None).windows.tolist() == [[0, 0, 1, 2]]
    assert "1 users have met all items and do not train" in capsys.readouterr().out
    alone = from_sequences("made", ["x", "y", "z"], [""] * 3, ["b"], users[1:])
    with pytest.raises(UserError, match=r"every user has met all 3 items; use config\.loss=ce"):
        device_data(alone, settings, None)
