"""The scorer of several experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.batching.device import device_data
from pad_jax.data.settings import DataSettings
from pad_jax.models.scorer import Scorer, vectors_of
from tests.support.data import laid_out


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "caser"])
def test_bfloat16_is_the_same_function_in_fewer_digits(make_config, dataset, text, backbone):
    """User and item vectors of PAD's three experts differ by less than 3 %, but do differ; parameters stay float32."""
    data = jax.tree.map(jnp.asarray, device_data(dataset, DataSettings(length=8), text))
    layout = laid_out(np.asarray(data.windows[:, 1:] > 0))
    ids = jnp.take(data.windows[:, 1:].reshape(-1), layout.grid.cell, mode="clip")
    found, inputs = {}, None
    for dtype in ("float32", "bfloat16"):
        config = make_config(model__dtype=dtype, backbone=backbone)
        scorer = Scorer(config, ("id", "aligned", "text"), config.gate.kind)
        params = jax.jit(lambda key, s=scorer: s.init(key, dataset.items, text.shape[1]))(jax.random.key(0))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
        items = jax.jit(scorer.item_vectors)(params, jnp.arange(dataset.items + 1), data)
        inputs = inputs or jax.tree.map(lambda x: x[ids], vectors_of(items))
        users = scorer.joined(jax.jit(scorer.users)(params, inputs, layout, jnp.zeros(layout.uid.shape, int)))
        found[dtype] = [users, jax.jit(scorer.gated)(params, items, data.bucket, data.counts).vectors]
    for exact, rough in zip(found["float32"], found["bfloat16"], strict=True):
        assert rough.dtype == jnp.float32
        assert 1e-4 < jnp.linalg.norm(rough - exact) / jnp.linalg.norm(exact) < 0.03
