"""CTRL: the contrast of stage 1, and what stage 2 has of it."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.losses.contrastive import info_nce
from pad_jax.training.step import merge
from tests.support.steps import names


def test_ctrl_drops_the_text_after_stage_one(setup):
    s = setup("ctrl")
    first, second = s.method.phases
    previous = s.previous(second)
    _, state = s.state(second, previous)
    assert names(state.params["tables"]) == {"id"}
    assert "towers" not in state.params
    np.testing.assert_array_equal(state.params["tables"]["id"], previous["tables"]["aligned"])

    optimizer, state = s.state(first)
    batch, _ = s.batch()
    after, metrics = s.step(first, optimizer, state, batch)
    assert set(metrics) == {"text", "id", "loss"}
    np.testing.assert_allclose(metrics["loss"], (metrics["text"] + metrics["id"]) / 2, rtol=1e-6)
    kept = {"encoders", "towers/aligned/cat"}
    assert names(state.frozen) == {n for n in names(state.frozen) if n.startswith(tuple(kept))}
    assert all(any(n.startswith(k) for n in names(state.frozen)) for k in kept)
    moved = np.asarray(after.params["tables"]["aligned"] != state.params["tables"]["aligned"]).any(axis=1)
    assert moved[np.unique(batch.event_item)[1:]].all()


def test_ctrl_contrasts_each_item_of_a_group_once(setup):
    """Stage 1 by hand: the distinct items of every four users, in both directions."""
    s = setup("ctrl", **{"model.dropout": 0.0})
    phase = s.method.phases[0]
    optimizer, state = s.state(phase)
    batch, _ = s.batch()
    _, metrics = s.step(phase, optimizer, state, batch)
    params = merge(state.params, state.frozen)
    vectors = jax.jit(s.scorer(phase).item_vectors)
    ids, text = vectors(params, jnp.arange(s.items + 1), s.data)["aligned"].parts
    contrast = jax.jit(lambda a, b: info_nce(a, b, jnp.ones(len(a), bool), 0.1))
    expected = {"text": [], "id": []}
    windows = np.asarray(s.data.windows)[:16].reshape(4, -1)
    for group in windows:
        items = np.unique(group[group > 0])
        expected["text"].append(contrast(text[items], ids[items]))
        expected["id"].append(contrast(ids[items], text[items]))
    for side, values in expected.items():
        np.testing.assert_allclose(metrics[side], np.mean(values), rtol=1e-4)
