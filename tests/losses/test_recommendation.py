"""Recommendation losses against the formula in plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.losses.recommendation import binary_cross_entropy, cross_entropy, sampled_softmax

RANDOM = np.random.default_rng(0)

USERS = jnp.asarray(RANDOM.normal(size=(6, 4)), jnp.float32)

ITEMS = jnp.asarray(RANDOM.normal(size=(9, 4)), jnp.float32)

TARGET = jnp.array([3, 1, 8, 2, 0, 0])

VALID = TARGET > 0


def test_binary_cross_entropy():
    positive, negative = RANDOM.normal(size=(2, 6))
    valid = np.asarray(VALID)
    sigmoid = 1 / (1 + np.exp(-positive)), 1 / (1 + np.exp(-negative))
    expected = (-np.log(sigmoid[0]) - np.log(1 - sigmoid[1]))[valid].mean()
    value = binary_cross_entropy(jnp.float32(positive), jnp.float32(negative), VALID).value
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_binary_cross_entropy_of_nothing_known_is_two_ln_two():
    zeros = jnp.zeros(4)
    np.testing.assert_allclose(binary_cross_entropy(zeros, zeros, jnp.ones(4, bool)).value, 2 * np.log(2), rtol=1e-6)


def test_cross_entropy():
    logits = np.asarray(USERS @ ITEMS[1:].T)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(softmax[np.arange(4), TARGET[:4] - 1]).mean()
    np.testing.assert_allclose(cross_entropy(USERS, ITEMS, TARGET, VALID).value, expected, rtol=1e-6)
    gradient = jax.grad(lambda items: cross_entropy(USERS, items, TARGET, VALID).value)(ITEMS)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient[0]).any()  # row 0 is padding


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_cross_entropy_in_blocks_has_value_and_gradients_of_the_softmax(rows, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        users, items = jnp.asarray(USERS, dtype), 30 * jnp.asarray(ITEMS, dtype)  # logits of hundreds do not overflow

        def plain(users, items):
            return -jnp.take_along_axis(jax.nn.log_softmax(users @ items[1:].T), TARGET[:4, None] - 1, axis=1).mean()

        expected = jax.value_and_grad(lambda u, i: 3 * plain(u[:4], i), argnums=(0, 1))(users, items)
        found = jax.value_and_grad(lambda u, i: 3 * cross_entropy(u, i, TARGET, VALID, rows).value, argnums=(0, 1))(
            users, items
        )
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_sampled_softmax_of_every_item_is_the_full_softmax():
    """With the N items drawn once each, only log((N-1)/N) and the dropped target tell it from the full softmax."""
    drawn = jnp.arange(1, 9)
    positive = jnp.sum(USERS * ITEMS[TARGET], axis=-1)
    value = sampled_softmax(positive, USERS @ ITEMS[drawn].T, TARGET, drawn, 8, VALID).value
    logits = np.asarray(USERS @ ITEMS[1:].T)
    rows = []
    for row in range(4):
        own = logits[row, TARGET[row] - 1]
        others = np.delete(logits[row], TARGET[row] - 1)
        rows.append(np.log(np.exp(own) + 7 / 8 * np.exp(others).sum()) - own)
    np.testing.assert_allclose(value, np.mean(rows), rtol=1e-5)
