"""LLMEmb: an adapter of frozen text that is drawn to trained IDs."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.losses.contrastive import soft_contrast
from pad_jax.training.step import merge
from tests.support.steps import assert_equal, names


def test_alignment_by_hand_and_what_it_moves(setup):
    """The window events of every four users, an item as often as it occurs; IDs and text stay bitwise."""
    s = setup("llmemb", "best", **{"llmemb.weight": 0.5, "llmemb.temperature": 3.0, "train.weight_decay": 0.0})
    phase = s.phase("finetune")
    previous = s.previous(phase)
    optimizer, state = s.state(phase, previous)
    assert names(state.params) >= {f"towers/adapter/adapter/Dense_{n}/kernel" for n in (0, 1)}
    assert names(state.frozen) == {"tables/id"}
    np.testing.assert_array_equal(state.frozen["tables"]["id"], previous["tables"]["id"])
    params, text = merge(state.params, state.frozen), np.array(s.data.text)
    adapted = s.scorer(phase).item_vectors(params, jnp.arange(31), s.data)["adapter"].vector
    assert np.abs(adapted[30]).max() > 0.01  # the last item has a vector
    batch, _ = s.batch()
    step = s.stepper(phase, optimizer)
    after, metrics = step(state, batch, jax.random.key(0))
    contrast = jax.jit(lambda x, y, mask: soft_contrast(x, y, mask, 3.0))
    expected, windows = [], np.asarray(s.data.windows)[:16].reshape(4, -1)
    for group in windows:
        expected.append(contrast(previous["tables"]["id"][group], adapted[group], jnp.asarray(group > 0)))
    np.testing.assert_allclose(metrics["alignment"], np.mean(expected), rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], metrics["rec"] + 0.5 * metrics["alignment"], rtol=1e-6)
    after, _ = step(after, batch, jax.random.key(1))
    assert_equal(after.frozen, {"tables": {"id": previous["tables"]["id"]}})
    np.testing.assert_array_equal(s.data.text, text)
    for layer in ("Dense_0", "Dense_1"):
        moved = after.params["towers"]["adapter"]["adapter"][layer]["kernel"]
        assert (np.asarray(moved) != np.asarray(state.params["towers"]["adapter"]["adapter"][layer]["kernel"])).any()
