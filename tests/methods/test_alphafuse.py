"""AlphaFuse: whitened text with IDs in its weak directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.training.step import merge
from tests.support.steps import assert_equal, names


def started(s):
    phase = s.method.phases[0]
    return phase, *s.state(phase)


def whiten(params, text):
    own = params["towers"]["alphafuse"]["whitening"]
    return (np.asarray(text, np.float64) - np.asarray(own["mean"])) @ np.asarray(own["matrix"])


def test_text_is_white_and_ids_stand_in_its_last_directions(setup):
    s = setup("alphafuse")  # text of width 12, D 16: four directions are empty
    phase, _, state = started(s)
    params = merge(state.params, state.frozen)
    assert params["tables"]["alphafuse"].shape == (31, 8)
    assert not np.asarray(params["tables"]["alphafuse"]).any()
    text = np.asarray(s.data.text)[1:]
    white = whiten(params, text)
    np.testing.assert_allclose(white.T @ white / 30, np.diag([1.0] * 12 + [0] * 4), atol=1e-4)
    values = np.linalg.eigvalsh(np.cov(text.T, bias=True))[::-1]
    matrix = np.asarray(params["towers"]["alphafuse"]["whitening"]["matrix"])[:, :12]
    np.testing.assert_allclose(1 / (matrix**2).sum(axis=0), values, rtol=1e-3)  # the strongest first

    rows = np.random.default_rng(0).normal(size=(31, 8)).astype(np.float32)
    rows[0] = 0
    params["tables"] = {"alphafuse": jnp.asarray(rows)}
    found = s.scorer(phase).item_vectors(params, jnp.arange(31), s.data)["alphafuse"].vector
    expected = white + np.pad(rows[1:], ((0, 0), (8, 0)))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found[1:], expected, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 2])
def test_text_of_low_rank_is_no_nan_and_whitening_stays(setup, rank):
    s = setup("alphafuse")
    random = np.random.default_rng(0)
    text = random.normal(size=(31, rank)) @ random.normal(size=(rank, 12)) + 1
    s.data = s.data._replace(text=jnp.asarray(text, jnp.float32))
    phase, optimizer, state = started(s)
    before = jax.tree.map(np.array, state.frozen)
    kept = {f"towers/alphafuse/whitening/{leaf}" for leaf in ("mean", "matrix")}
    assert names(state.frozen) == kept
    white = whiten(before, text)[1:]
    centred = white - white.mean(axis=0)
    np.testing.assert_allclose(centred.T @ centred / 30, np.diag([1.0] * rank + [0] * (16 - rank)), atol=0.1)
    if rank:
        batch, _ = s.batch()
        after, metrics = s.step(phase, optimizer, state, batch, jax.random.key(0))
        assert np.isfinite(metrics["loss"])
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))
        assert np.asarray(after.params["tables"]["alphafuse"]).any()
        assert_equal(after.frozen, before)
