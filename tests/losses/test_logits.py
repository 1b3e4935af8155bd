"""Logits as a loss asks for them, of inner products and of an expert with a score of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.losses.recommendation import LOSSES, Logits, Loss, Scored, cross_entropy
from tests.support.data import small_config

T, N = 24, 40


def random(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture
def parts():
    """Users, items, a second pair with a score of its own, targets, valid positions, drawn items."""
    numbers = np.random.default_rng(0)
    target = jnp.asarray(numbers.integers(1, N + 1, T))
    valid = jnp.asarray(numbers.random(T) < 0.8)
    drawn = jnp.asarray(numbers.integers(1, N + 1, T))
    own = random(T, 3, seed=3), random(N + 1, 3, seed=4), jax.nn.sigmoid(random(N + 1, seed=5))
    return random(T, 6, seed=1), random(N + 1, 6, seed=2), own, jnp.where(valid, target, 0), valid, drawn


def squares(users, items):
    """Another score: of dictionaries, minus the squared distance."""
    return -((users["x"][:, None] - items["x"][None]) ** 2).sum(axis=-1)


def logits(parts, needs, with_own=True):
    users, items, (own_users, own_items, gate), target, valid, drawn = parts
    others = (Scored(squares, {"x": own_users}, {"x": own_items}, gate),) if with_own else ()
    return Logits(users, items, others, target, valid, lambda x: x[target], drawn, drawn, N, needs)


def by_hand(parts, with_own=True):
    users, items, (own_users, own_items, gate), *_ = parts
    total = users @ items.T
    if with_own:
        total += gate[None] * squares({"x": own_users}, {"x": own_items})
    return np.asarray(total)


@pytest.mark.parametrize("with_own", [False, True])
def test_every_way_to_ask_gives_the_same_logits(parts, with_own):
    drawn_one, drawn_all, everything = (logits(parts, n, with_own) for n in ("negatives", "samples", "catalogue"))
    whole = by_hand(parts, with_own)
    target, drawn = np.asarray(parts[3]), np.asarray(parts[5])
    np.testing.assert_allclose(drawn_one.positive(), whole[np.arange(T), target], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(drawn_one.negative(), whole[np.arange(T), drawn], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(drawn_all.drawn(), whole[:, drawn], rtol=1e-5, atol=1e-5)
    picked = everything.over_catalogue(lambda x, column: jnp.take_along_axis(x, column[:, None], axis=1)[:, 0])
    own = whole[np.arange(T), target][np.asarray(parts[4])]
    np.testing.assert_allclose(picked.value, own.mean(), rtol=1e-4, atol=1e-5)


def test_a_loss_over_the_catalogue_is_the_cross_entropy(parts):
    """Value and gradients of the general way are those of the one that is written for inner products."""
    users, items, _, target, valid, _ = parts

    def general(users, items):
        found = logits((users, items, *parts[2:]), "catalogue", with_own=False)
        return found.over_catalogue(
            lambda x, column: jax.nn.logsumexp(x, axis=1) - jnp.take_along_axis(x, column[:, None], axis=1)[:, 0]
        ).value

    def special(users, items):
        return cross_entropy(users, items, target, valid).value

    ours, theirs = (jax.value_and_grad(f, argnums=(0, 1))(users, items) for f in (general, special))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


@pytest.mark.parametrize("loss", ["bce", "ce", "sampled_softmax"])
def test_losses_of_a_score_that_is_no_inner_product(parts, loss):
    """Brute force over [T, N + 1] logits, and the gradient of every part by finite differences."""
    _, _, _, target, valid, drawn = (np.asarray(x) if not isinstance(x, tuple) else x for x in parts)
    whole = by_hand(parts).astype(np.float64)
    rows = np.arange(T)
    if loss == "bce":
        values = np.log1p(np.exp(-whole[rows, target])) + np.log1p(np.exp(whole[rows, drawn]))
    elif loss == "ce":
        values = np.log(np.exp(whole[:, 1:]).sum(axis=1)) - whole[rows, target]
    else:
        raised = whole[:, drawn] + np.log((N - 1) / T)
        raised[drawn[None] == target[:, None]] = -np.inf
        values = np.log(np.exp(raised).sum(axis=1) + np.exp(whole[rows, target])) - whole[rows, target]
    np.testing.assert_allclose(
        LOSSES[loss].value(logits(parts, LOSSES[loss].needs), small_config()).value, values[valid].mean(), rtol=1e-4
    )

    def of(own):
        return LOSSES[loss].value(logits((*parts[:2], own, *parts[3:]), LOSSES[loss].needs), small_config()).value

    gradients = jax.grad(of)(parts[2])
    for leaf, gradient in enumerate(gradients):
        direction = random(*gradient.shape, seed=7)
        moved = [[x + step * direction if n == leaf else x for n, x in enumerate(parts[2])] for step in (1e-2, -1e-2)]
        slope = (of(tuple(moved[0])) - of(tuple(moved[1]))) / 2e-2
        np.testing.assert_allclose(jnp.vdot(gradient, direction), slope, rtol=2e-2, atol=2e-3)


def test_what_was_not_drawn_cannot_be_asked_for(parts):
    with pytest.raises(UserError, match=r"logits\.over_catalogue must be registered with needs='catalogue'"):
        logits(parts, "negatives").over_catalogue(lambda x, column: x[:, 0])
    with pytest.raises(UserError, match=r"logits\.negative must be registered with needs='negatives'"):
        logits(parts, "catalogue").negative()
    with pytest.raises(UserError, match=r"logits\.drawn must be registered with needs='samples'"):
        logits(parts, "negatives").drawn()
    with pytest.raises(UserError, match=r"must give \(24,\) values, one a row, not \(\)"):
        logits(parts, "catalogue").over_catalogue(lambda x, column: x.sum())
    with pytest.raises(UserError, match="the loss 'mine' needs 'all': it must be negatives, samples or catalogue"):
        LOSSES.register("mine", Loss(lambda logits, config: None, "all"))
