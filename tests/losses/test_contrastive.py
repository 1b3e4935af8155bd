"""InfoNCE and CLUB against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.losses.contrastive import club, gaussian_nll, info_nce, soft_contrast


def test_info_nce_agrees_with_the_oracle():
    i, j = np.arange(4)[:, None], np.arange(3)[None]
    with jax.enable_x64(True):
        source, target = jnp.asarray(np.sin(1 + i + 2 * j)), jnp.asarray(np.cos(1 + 2 * i + j) + 0.5)
        rows = jnp.ones(4, bool)
        oracle = {(True, 0.1): 9.588772870902, (False, 0.1): 8.715595088407, (True, 1.0): 1.752871114844}
        for (forwards, temperature), expected in oracle.items():
            views = (source, target) if forwards else (target, source)
            np.testing.assert_allclose(info_nce(*views, rows, temperature), expected, rtol=1e-9)
        wider = (jnp.concatenate([x, 9 * jnp.ones((2, 3))]) for x in (source, target))
        masked = info_nce(*wider, jnp.arange(6) < 4, 0.1)
        np.testing.assert_allclose(masked, oracle[True, 0.1], rtol=1e-9)


def test_soft_contrast_agrees_with_the_oracle():
    i, j = np.arange(4)[:, None], np.arange(3)[None]
    with jax.enable_x64(True):
        x, y = jnp.asarray(np.sin(1 + i + 2 * j)), jnp.asarray(np.cos(1 + 2 * i + j) + 0.5)
        loss = jax.jit(soft_contrast, static_argnums=3)
        for temperature, expected in {1.0: 1.897846814821, 2.0: 1.593545947200, 3.0: 1.515718241103}.items():
            np.testing.assert_allclose(loss(x, y, jnp.ones(4, bool), temperature), expected, rtol=1e-9)

        # rows that do not count change nothing, whatever they hold
        wider = [jnp.concatenate([z, bad * jnp.ones((2, 3))]) for z, bad in ((x, 9.0), (y, -1e3))]
        mask = jnp.arange(6) < 4
        np.testing.assert_allclose(loss(*wider, mask, 2.0), 1.593545947200, rtol=1e-9)
        gradients = jax.jit(jax.grad(soft_contrast, argnums=(0, 1)), static_argnums=3)(*wider, mask, 2.0)
        for gradient in gradients:
            assert np.isfinite(gradient).all()
            assert not np.asarray(gradient[4:]).any()
        assert loss(*wider, jnp.zeros(6, bool), 2.0) == 0

        # the gradient is that of the whole, the targets Q included
        step = 1e-6 * jnp.zeros((6, 3)).at[1, 2].set(1)
        slope = (loss(wider[0] + step, wider[1], mask, 2.0) - loss(wider[0] - step, wider[1], mask, 2.0)) / 2e-6
        np.testing.assert_allclose(gradients[0][1, 2], slope, rtol=1e-6)


def test_club_and_likelihood_are_their_formulas():
    random = np.random.default_rng(0)
    mean, log_variance, y = random.normal(size=(3, 6, 5)).astype(np.float32)
    mask = np.array([1, 1, 0, 1, 1, 0], bool)
    rows, total, likelihood = np.flatnonzero(mask), 0.0, 0.0
    for i in rows:
        variance = np.exp(log_variance[i])
        others = np.mean([(y[j] - mean[i]) ** 2 for j in rows], axis=0)
        total += ((others - (y[i] - mean[i]) ** 2) / (2 * variance)).sum()
        likelihood += ((y[i] - mean[i]) ** 2 / (2 * variance) + np.log(variance) / 2).sum()
    arguments = [jnp.asarray(x) for x in (mean, log_variance, y, mask)]
    np.testing.assert_allclose(club(*arguments), total / len(rows), rtol=1e-5)
    np.testing.assert_allclose(gaussian_nll(*arguments), likelihood / len(rows), rtol=1e-5)
