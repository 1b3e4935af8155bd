"""Item towers: their start and their sizes."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.models.towers import Dense, TextMLP, TextResidual
from tests.support.states import WIDTH


def test_text_towers():
    text = jax.random.normal(jax.random.key(0), (3, WIDTH))
    uid = jnp.arange(3)
    residual = TextResidual(WIDTH)
    np.testing.assert_array_equal(
        residual.apply(residual.init(jax.random.key(1), text, uid, False), text, uid, False), text
    )
    mlp = TextMLP(128, layers=4)
    params = mlp.init(jax.random.key(1), jnp.zeros((1, 4096)), uid[:1], False)
    assert sum(x.size for x in jax.tree.leaves(params)) == 590_464  # the official text MLP
    cat = Dense(128)
    params = cat.init(jax.random.key(1), jnp.zeros((1, 256)), uid[:1], False)
    assert sum(x.size for x in jax.tree.leaves(params)) == 32_896  # the official CAT
