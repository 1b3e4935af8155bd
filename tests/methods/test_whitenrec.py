"""WhitenRec: whitening in full and within groups, and the two views together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.methods.fills import whitened, whitened_in_groups, zca
from pad_jax.models.experts import EXPERTS
from pad_jax.training.step import merge
from tests.support.data import small_config
from tests.support.steps import assert_equal, names


def covariance(rows):
    centred = rows - rows.mean(axis=0)
    return centred.T @ centred / len(rows)


def test_whitening_in_groups(setup):
    s = setup("whitenrec")
    rows = np.asarray(s.data.text)[1:].astype(np.float64)
    full = whitened(s.config, s.data, (12, 12))
    np.testing.assert_allclose(covariance(rows @ full), np.eye(12), atol=1e-5)
    np.testing.assert_allclose(full, full.T, atol=1e-9)
    np.testing.assert_allclose(full @ covariance(rows) @ full, np.eye(12), atol=1e-5)
    np.testing.assert_array_equal(whitened_in_groups(s.config, s.data, (12, 12), 1), full)
    groups = [np.arange(0, 3), np.arange(3, 6), np.arange(6, 8), np.arange(8, 10), np.arange(10, 12)]
    relaxed = whitened_in_groups(s.config, s.data, (12, 12), 5)
    found = covariance(rows @ relaxed)
    inside = np.zeros((12, 12), bool)
    for group in groups:
        inside[np.ix_(group, group)] = True
    np.testing.assert_allclose(found[inside], np.eye(12)[inside], atol=1e-5)
    assert not relaxed[~inside].any()
    assert np.abs(found[~inside]).max() > 0.05  # the rest of the correlations stays
    single = whitened_in_groups(s.config, s.data, (12, 12), 12)
    np.testing.assert_allclose(single, np.diag(1 / rows.std(axis=0)), rtol=1e-5)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_whitening_cuts_at_the_rank(rank):
    random = np.random.default_rng(0)
    rows = (random.normal(size=(30, rank)) @ random.normal(size=(rank, 6)) + 1).astype(np.float32)
    matrix = zca(rows)
    assert np.isfinite(matrix).all()
    if rank:
        values = np.linalg.eigvalsh(covariance(rows.astype(np.float64) @ matrix))
        np.testing.assert_allclose(values, [0] * (6 - rank) + [1] * rank, atol=1e-4)


def test_both_views_pass_one_projection(setup):
    plain = setup("whitenrec").method.phases[0]
    assert plain.keep == ("towers/whitenrec/full",)
    s = setup("whitenrec", "best", **{"whitenrec.groups": 3, "model.dropout": 0.0})
    phase = s.method.phases[0]
    optimizer, state = s.state(phase)
    params = merge(state.params, state.frozen)
    own = params["towers"]["whitenrec"]
    views = ("full", "relaxed")
    assert names(state.params["towers"]["whitenrec"]) == {
        f"{n}/{p}" for n in ("hidden", "last") for p in ("bias", "kernel")
    }
    assert names(state.frozen["towers"]["whitenrec"]) == {f"{v}/{p}" for v in views for p in ("mean", "matrix")}
    assert "tables" not in params
    text = np.asarray(s.data.text, np.float64)[1:]
    total = 0
    for view in views:
        white = (text - text.mean(axis=0)) @ np.asarray(own[view]["matrix"])
        hidden = jax.nn.gelu(white @ np.asarray(own["hidden"]["kernel"]), approximate=False)  # biases start at zero
        total = total + np.asarray(hidden) @ np.asarray(own["last"]["kernel"])
    total /= np.linalg.norm(total, axis=1, keepdims=True)
    vectors = s.scorer(phase).item_vectors(params, jnp.arange(1, 31), s.data)["whitenrec"].vector
    np.testing.assert_allclose(vectors, total, atol=1e-4)
    before = jax.tree.map(np.array, state)
    batch, _ = s.batch()
    after, metrics = s.step(phase, optimizer, state, batch)
    assert np.isfinite(metrics["loss"])
    for name in ("hidden", "last"):
        moved = np.asarray(after.params["towers"]["whitenrec"][name]["kernel"])
        assert (moved != before.params["towers"]["whitenrec"][name]["kernel"]).any()
    assert_equal(after.frozen, before.frozen)


def test_more_groups_than_dimensions_are_one_line():
    with pytest.raises(UserError, match=r"whitenrec\.groups=13 is more than the 12 of the text"):
        EXPERTS["whitenrec"].check_text(small_config(whitenrec__groups=13), 12)
