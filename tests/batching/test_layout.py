"""Tokens and grid are two views of the same events."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.batching.layout import compact, pack
from tests.support.data import laid_out


def left_padded(random, rows, length):
    return np.arange(length) >= length - random.integers(0, length + 1, size=(rows, 1))


@pytest.mark.parametrize("spare", [0, 2])
def test_grid_and_tokens_are_inverse(spare):
    random = np.random.default_rng(0)
    mask = left_padded(random, 6, 5)
    layout = laid_out(mask, spare=spare)
    x = jnp.asarray(random.normal(size=(len(layout.grid.cell), 3)), jnp.float32)
    grid = np.asarray(layout.grid.to_grid(x))
    used = np.asarray(layout.grid.valid)
    assert used.sum() == mask.sum()
    np.testing.assert_array_equal(grid[mask], x[layout.grid.token[mask]])
    assert not grid[~mask].any()
    back = np.asarray(layout.grid.to_tokens(jnp.asarray(grid)))
    np.testing.assert_array_equal(back[used], x[used])
    assert not back[~used].any()
    np.testing.assert_array_equal(layout.grid.mask, mask)
    np.testing.assert_array_equal(layout.last(x)[mask[:, -1]], grid[:, -1][mask[:, -1]])


def test_compact_lists_are_in_row_major_order():
    mask = left_padded(np.random.default_rng(2), 6, 5)
    grid = compact(jnp.array(mask), int(mask.sum()) + 3)
    x = jnp.arange(30.0).reshape(6, 5)
    np.testing.assert_array_equal(grid.to_tokens(x)[: mask.sum()], np.asarray(x)[mask])
    np.testing.assert_array_equal(grid.to_grid(grid.to_tokens(x)), np.where(mask, x, 0))


@pytest.mark.parametrize("seed", range(3))
def test_packing_puts_every_row_into_one_bin(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 21, size=(5, 40))
    lengths[4] = 0
    start, bins = pack(lengths, 20)
    for k in range(5):
        owner = np.full(20 * bins[k], -1)
        for row, (begin, length) in enumerate(zip(start[k], lengths[k], strict=True)):
            assert (owner[begin : begin + length] == -1).all()
            assert len(owner[begin : begin + length]) == length
            assert length == 0 or begin // 20 == (begin + length - 1) // 20
            owner[begin : begin + length] = row
        assert bins[k] <= np.ceil(1.15 * lengths[k].sum() / 20)
    awkward, bins = pack(np.full((1, 9), 11), 20)  # no two fit together
    assert bins[0] == 9
    assert sorted(awkward[0]) == list(range(0, 180, 20))


def test_long_batches_are_packed_in_parts():
    lengths = np.random.default_rng(3).integers(0, 21, size=(3, 700))
    start, bins = pack(lengths, 20)
    for k in range(3):
        taken = np.zeros(20 * bins[k], int)
        for begin, length in zip(start[k], lengths[k], strict=True):
            assert length == 0 or begin // 20 == (begin + length - 1) // 20
            taken[begin : begin + length] += 1
        assert taken.max() == 1
        assert taken.sum() == lengths[k].sum()
        assert bins[k] <= np.ceil(1.15 * lengths[k].sum() / 20)


def test_moves_have_the_gradient_of_a_plain_gather():
    mask = left_padded(np.random.default_rng(1), 4, 6)
    layout = laid_out(mask, spare=1)
    x = jax.random.normal(jax.random.key(0), (len(layout.grid.cell), 2))

    def plain(x):
        return jnp.sin(jnp.concatenate([x, jnp.zeros((1, 2))])[jnp.minimum(layout.grid.token, len(x))]).sum()

    np.testing.assert_allclose(jax.grad(lambda x: jnp.sin(layout.grid.to_grid(x)).sum())(x), jax.grad(plain)(x))
