import jax
import numpy as np
import pytest

from pad_jax import parallel
from pad_jax.errors import UserError
from pad_jax.training.checkpoint import Checkpoints
from pad_jax.training.step import TrainState


@pytest.fixture
def state():
    """Large enough that it is still being written when `save` is back."""
    return parallel.replicate(TrainState({"x": np.arange(1 << 24, dtype=np.float32)}, {}, {}, np.int32(1)))


def test_whoever_ends_training_leaves_nothing_half_written(state, tmp_path):
    """A second run in the same process, say of a notebook, would otherwise clear up what is being written."""

    def ended():
        with Checkpoints(tmp_path / "c", "run") as checkpoints:
            checkpoints.save(1, state, {}, {"best": 1.0, "best_epoch": 1})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ended()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["1"]
    with Checkpoints(tmp_path / "c", "run") as checkpoints:
        again, _, progress = checkpoints.restore(1, state)
    jax.tree.map(np.testing.assert_array_equal, again._asdict(), state._asdict())
    assert progress["best_epoch"] == 1


def test_an_error_is_told_before_one_of_writing_behind_it(tmp_path, monkeypatch):
    def full():
        raise OSError("No space left on device")

    checkpoints = Checkpoints(tmp_path / "c")
    monkeypatch.setattr(checkpoints.manager, "close", full)
    with pytest.raises(UserError, match=r"a checkpoint cannot be written \(No space left"), checkpoints:
        pass
    with pytest.raises(ZeroDivisionError), checkpoints:
        raise ZeroDivisionError
