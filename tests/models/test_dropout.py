"""Dropout that belongs to the rows."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.models.dropout import dropout


def test_dropout_rate_and_scale():
    x = jnp.ones((500, 400))
    y = np.asarray(dropout(x, 0.3, jax.random.key(0), jnp.arange(500)))
    assert abs((y == 0).mean() - 0.3) < 0.005
    np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(y[7], dropout(x[:1], 0.3, jax.random.key(0), jnp.array([7]))[0])
    assert (y[7] != y[8]).any()
    kept = (y != 0) - 0.7
    for rows, columns in ((1, 0), (0, 1), (1, 1), (1, -1)):  # no draw follows from its neighbour
        moved = np.roll(kept, (rows, columns), axis=(0, 1))
        assert abs((kept * moved).mean()) < 4 * 0.21 / np.sqrt(kept.size)
