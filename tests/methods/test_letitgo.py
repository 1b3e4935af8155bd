"""Let It Go: text, and a delta that is never longer than its bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.models.experts import EXPERTS
from pad_jax.models.towers import unit
from pad_jax.pipeline import Run
from tests.support.data import small_config


def test_projection_agrees_with_the_oracle():
    i, j = np.arange(4)[:, None], np.arange(3)[None]
    with jax.enable_x64(True):
        rows = jnp.asarray(0.4 * np.sin(1 + i + 2 * j))
        found = EXPERTS["delta"].bounded(small_config(), rows)
        np.testing.assert_allclose(jnp.linalg.norm(found, axis=1), [0.5, 0.486234, 0.468373, 0.5], atol=1e-6)
        np.testing.assert_array_equal(found[1:3], rows[1:3])
        turned = jnp.cross(found, rows)
        np.testing.assert_allclose(turned, 0, atol=1e-12)
        none = EXPERTS["delta"].bounded(small_config(letitgo__bound=0.0), rows)
        assert not np.asarray(none).any()
        assert not np.asarray(EXPERTS["delta"].bounded(small_config(), jnp.zeros((2, 3)))).any()


@pytest.mark.parametrize("tables", ["dense", "lazy"])
def test_no_delta_is_longer_after_any_update(setup, tables):
    """Steps of rate 1 throw every delta that moves onto the bound; an unseen item is its text, to the last bit."""
    fields = {"optimizer.tables": tables, "loss": "bce", "pretrain.learning_rate": 1.0, "letitgo.bound": 0.3}
    s = setup("letitgo", "best", **fields, **{"train.adjustment": 0.0, "train.weight_decay": 0.0})
    batch, _ = s.batch()
    unseen = int(batch.targets[0])
    met = s.data.arrays["delta"]["met"]
    assert met[1:].all()
    assert not met[0]
    s.data = s.data._replace(arrays={"delta": {"met": met.at[unseen].set(0)}})
    phase = s.method.phases[0]
    optimizer, state = s.state(phase)
    assert not np.asarray(state.params["tables"]["delta"]).any()
    step = s.stepper(phase, optimizer)
    for number in range(2):
        state, _ = step(state, batch, jax.random.key(number))
        length = np.linalg.norm(state.params["tables"]["delta"], axis=1)
        assert length.max() <= 0.3 * (1 + 1e-6)
        moved = np.setdiff1d(batch.event_item, [0, unseen])
        np.testing.assert_allclose(length[moved], 0.3, rtol=1e-5)
    vectors = s.scorer(phase).item_vectors(state.params, jnp.arange(31), s.data)["delta"].vector
    text = unit(s.data.text)
    np.testing.assert_array_equal(vectors[unseen], text[unseen])
    np.testing.assert_array_equal(vectors[0], jnp.zeros(16))
    np.testing.assert_allclose(np.linalg.norm((vectors - text)[moved], axis=1), 0.3, rtol=1e-5)


def test_text_of_another_width_is_one_line(world, make_config, tmp_path):
    """Before anything is trained."""
    config = make_config("best", method="letitgo", **world | {"text.transform": "none"})
    with pytest.raises(UserError, match=r"width config\.model\.width=16, not 12: set --config\.text\.transform=princ"):
        _ = Run(config, tmp_path / "w", str).data
    residual = make_config("best", method="morec", **world | {"text.transform": "none"})
    with pytest.raises(UserError, match=r"text_tower=residual needs text of width 16, not 12"):
        _ = Run(residual, tmp_path / "v", str).data
    _ = Run(make_config("best", method="whitenrec", **world | {"text.transform": "none"}), tmp_path / "u", str).data
