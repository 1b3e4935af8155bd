"""Item towers: their start and their sizes."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.models.experts import EXPERTS
from pad_jax.models.towers import Dense, Linear2, TextMLP, TextResidual, unit
from tests.support.data import small_config
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


def test_two_linear_layers_are_affine():
    x, y = jax.random.normal(jax.random.key(0), (2, 3, 10))
    adapter = Linear2(4)
    params = adapter.init(jax.random.key(1), x)
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases too
    assert sum(p.size for p in jax.tree.leaves(params)) == (10 + 1) * 5 + (5 + 1) * 4
    a = [adapter.apply(params, z) for z in (x + y, x, y, 0 * x)]
    np.testing.assert_allclose(a[0] - a[1] - a[2] + a[3], 0, atol=1e-5)
    assert np.abs(a[3]).min() > 1e-3
    config = small_config("paper", **{"model.text_tower": "linear2"})
    tower = jax.eval_shape(lambda: EXPERTS["text"].init(config, jax.random.key(0), 5, 12))["towers"]["text"]
    assert {name: layer["kernel"].shape for name, layer in tower.items()} == {"Dense_0": (12, 6), "Dense_1": (6, 16)}


def test_a_linear_cat_starts_as_the_sum():
    """And is any linear map of the parts from then on, without a bias that would give padding a vector."""
    config = small_config("paper", **{"model.fusion": "linear", "model.dropout": 0.5})
    for expert, parts in (("aligned", 2), ("disco", 4)):
        kernel = EXPERTS[expert].init(config, jax.random.key(0), 5, 12)["towers"]["cat"]
        assert set(kernel) == {"kernel"}
        np.testing.assert_array_equal(kernel["kernel"], np.concatenate([np.eye(config.model.width)] * parts))
    rows, text, ids = jnp.ones((3, config.model.width)), jax.random.normal(jax.random.key(1), (3, 12)), jnp.arange(3)
    tower = EXPERTS["aligned"].init(config, jax.random.key(0), 5, 12)["towers"]
    found = EXPERTS["aligned"].items(config, tower, text, rows, ids, rngs={"dropout": jax.random.key(2)})
    np.testing.assert_allclose(found.vector, sum(found.parts), atol=1e-6)


def test_unit_rows():
    rows = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [1e-4, 0.0]])
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: unit(x).sum())(rows)).all()
