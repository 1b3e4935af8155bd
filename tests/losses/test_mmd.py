"""MK-MMD against the formula written out, and against values computed with the reference implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.losses.mmd import ESTIMATORS, KERNELS, exponentials, mk_mmd

I, J = np.meshgrid(np.arange(4), np.arange(3), indexing="ij")
SOURCE = np.sin(1 + I + 2 * J)
TARGET = np.cos(1 + 2 * I + J) + 0.5

# (kernel, scales, estimator) -> value, computed in float64 with the code that the official repository imports.
ORACLES = {
    ("gaussian", (-3, -2, -1, 0, 1), "tllib"): 0.304127020256,
    ("gaussian", (-3, -2, -1, 0, 1), "unbiased"): -0.362539646411,
    ("gaussian", (-3, -2, -1, 0, 1), "biased"): 1.097051555669,
    ("gaussian", (-3,), "unbiased"): -0.133434462730,
    ("gaussian", (-2,), "unbiased"): -0.130371209154,
    ("gaussian", (-1,), "unbiased"): -0.073610866917,
    ("gaussian", (0,), "unbiased"): -0.023113377139,
    ("gaussian", (1,), "unbiased"): -0.002009730472,
    ("laplacian", (-3, -2, -1, 0, 1), "unbiased"): -0.247979109535,
    ("linear", (), "unbiased"): 0.096483991637,
    ("linear", (), "biased"): 0.974581863427,
    ("cosine_paper", (), "unbiased"): 0.102256517394,
    ("cosine_paper", (), "biased"): -0.408767570225,
    ("cosine", (), "biased"): 0.408767570225,
}


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def mmd(source, target, kernel, scales, estimator):
    return mk_mmd(source, target, None, kernel, scales, estimator)


@pytest.mark.parametrize(("kernel", "scales", "estimator"), ORACLES)
def test_oracle_float64(kernel, scales, estimator):
    with jax.enable_x64(True):
        value = mmd(jnp.array(SOURCE), jnp.array(TARGET), kernel, scales, estimator)
        assert abs(float(value) - ORACLES[kernel, scales, estimator]) < 1e-9


@pytest.mark.parametrize(("kernel", "scales", "estimator"), ORACLES)
def test_oracle_float32(kernel, scales, estimator):
    value = mmd(jnp.float32(SOURCE), jnp.float32(TARGET), kernel, scales, estimator)
    np.testing.assert_allclose(value, ORACLES[kernel, scales, estimator], rtol=1e-5, atol=1e-6)


def test_against_itself():
    with jax.enable_x64(True):
        value = mk_mmd(jnp.array(SOURCE), jnp.array(SOURCE))
        assert abs(float(value) + 0.902939238834) < 1e-9


def test_written_out():
    """The definition as nested loops over pairs."""
    random = np.random.default_rng(0)
    source, target = random.normal(size=(6, 5)), random.normal(size=(6, 5)) + 1
    both = np.concatenate([source, target])
    mean = np.mean([np.sum((a - b) ** 2) for a in both for b in both])

    def k(a, b):
        return sum(np.exp(-np.sum((a - b) ** 2) / (2 * 2.0**u * mean)) for u in (-3, -2, -1, 0, 1))

    n = 6
    expected = sum(
        (k(source[i], source[j]) + k(target[i], target[j])) / (n * (n - 1)) * (i != j)
        - 2 * k(source[i], target[j]) / n**2
        for i in range(n)
        for j in range(n)
    )
    with jax.enable_x64(True):
        assert abs(float(mk_mmd(jnp.array(source), jnp.array(target), estimator="unbiased")) - expected) < 1e-12


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_masked_rows_change_nothing(kernel, estimator):
    random = np.random.default_rng(1)
    source, target, junk = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((7, 4), (7, 4), (5, 4)))
    order = random.permutation(12)
    mask = (np.arange(12) < 7)[order]

    @jax.jit
    def value(a, b):
        return mk_mmd(a, b, jnp.array(mask), kernel, estimator=estimator)

    padded = jnp.concatenate([source, 50 * junk])[order], jnp.concatenate([target, -30 * junk])[order]
    np.testing.assert_allclose(
        value(*padded), mmd(source, target, kernel, (-3, -2, -1, 0, 1), estimator), rtol=2e-5, atol=1e-6
    )
    gradient = np.asarray(jax.jit(jax.grad(value))(*padded))
    assert not gradient[~mask].any()
    assert gradient[mask].any()


@pytest.mark.parametrize("kernel", ["linear", "cosine"])  # those without a bandwidth, which is held constant
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_central_differences(kernel, estimator):
    random = np.random.default_rng(5)
    with jax.enable_x64(True):
        source, target, direction = (jnp.asarray(random.normal(size=(6, 4))) for _ in range(3))

        def along(step):
            return mk_mmd(source + step * direction, target - 2 * step * direction, None, kernel, estimator=estimator)

        along = jax.jit(along)
        np.testing.assert_allclose(jax.jit(jax.grad(along))(0.0), (along(1e-5) - along(-1e-5)) / 2e-5, rtol=1e-7)


def test_same_samples_have_no_gradient():
    """A permutation of the same sample is the same distribution: the biased MMD is 0 and so is its gradient."""
    random = np.random.default_rng(2)
    sample = jnp.asarray(random.normal(size=(9, 4)), jnp.float32)
    value, gradient = jax.value_and_grad(mk_mmd)(sample, sample[random.permutation(9)], estimator="biased")
    assert abs(float(value)) < 1e-6
    assert np.abs(gradient).max() < 1e-6


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows(rows):
    mask = jnp.arange(4) < rows
    value, gradient = jax.jit(jax.value_and_grad(mk_mmd))(jnp.float32(SOURCE), jnp.float32(TARGET), mask)
    assert float(value) == 0
    assert not np.asarray(gradient).any()


def test_equal_rows_have_finite_gradients():
    sample = jnp.ones((6, 3))
    for kernel in KERNELS:
        gradient = jax.jit(jax.grad(lambda s, k=kernel: mk_mmd(s, sample, None, k)))(sample)
        assert np.isfinite(gradient).all(), kernel


def test_squarings_are_exponentials():
    ratio = jnp.linspace(0, 30, 50).reshape(5, 10)
    for scales in ((-3, -2, -1, 0, 1), (2, 0), (-1,)):
        expected = sum(np.exp(-np.asarray(ratio, np.float64) / 2.0**u) for u in scales)
        np.testing.assert_allclose(exponentials(ratio, scales), expected, rtol=3e-6)


def test_cosine_of_the_paper_drives_samples_apart():
    """Eq. (15) is a distance: a descent step on it lowers the cosine between the samples; on `cosine` it raises it."""
    random = np.random.default_rng(3)
    source, target = (jnp.asarray(random.normal(size=(8, 3)) + shift, jnp.float32) for shift in (0, 0.5))

    def between(s):
        return float(
            (
                s
                / jnp.linalg.norm(s, axis=1, keepdims=True)
                @ (target / jnp.linalg.norm(target, axis=1, keepdims=True)).T
            ).mean()
        )

    for kernel, sign in (("cosine", 1), ("cosine_paper", -1)):
        step = source - 0.1 * jax.grad(lambda s, k=kernel: mk_mmd(s, target, None, k, estimator="biased"))(source)
        assert sign * (between(step) - between(source)) > 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-5)])
@pytest.mark.slow
def test_blocks_are_the_dense_form(kernel, estimator, dtype, tolerance):
    """Value and gradients, for blocks that do not divide the rows, with rows masked, and mapped over groups."""
    random = np.random.default_rng(4)
    with jax.enable_x64(dtype == np.float64):
        source, target = (jnp.asarray(random.normal(size=(2, 23, 6)) + shift, dtype) for shift in (0, 0.7))
        mask = jnp.asarray(np.arange(23) < np.array([[23], [17]]))

        def loss(s, t, block):
            each = jax.vmap(lambda a, b, m: mk_mmd(a, b, m, kernel, estimator=estimator, block=block))
            return each(s, t, mask).sum()

        both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)
        dense, dense_gradients = both(source, target, 1000)
        value, gradients = both(source, target, 5 * 23)
        alone = jax.jit(loss, static_argnums=2)(source, target, 5 * 23)
        np.testing.assert_allclose(value, dense, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(alone, dense, rtol=tolerance, atol=tolerance)
        for one, other in zip(gradients, dense_gradients, strict=True):
            np.testing.assert_allclose(one, other, rtol=10 * tolerance, atol=tolerance)
