"""SASRec against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.models.sasrec import SASRec, sasrec
from tests.support.data import laid_out, small_config
from tests.support.states import LENGTH, WIDTH, encode, start


@pytest.mark.parametrize(("scale", "times"), [("none", 1.0), ("sqrt", WIDTH**0.5)])
def test_sasrec_written_out(histories, scale, times):
    """The post-norm network in plain numpy on one unpadded history, its inputs scaled or not."""
    grid, _ = histories
    mask = np.ones((1, LENGTH), bool)
    model = sasrec(small_config(sasrec__scale=scale, sasrec__norm="post", sasrec__blocks=2, sasrec__ffn=4))
    params = start(model, mask)
    p = jax.tree.map(np.asarray, params["params"])

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p[name]["scale"] + p[name]["bias"]

    x = norm(times * grid[0] + p["positions"], "norm_input")
    for block in range(2):
        q, k, v = (x @ p[f"block_{block}_{n}"]["kernel"] for n in "qkv")
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = np.where(np.tri(LENGTH, dtype=bool), q[:, head] @ k[:, head].T / 2, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, head])
        x = norm(x + np.concatenate(heads, -1) @ p[f"block_{block}_o"]["kernel"], f"block_{block}_norm_attention")
        inner, outer = p[f"block_{block}_ffn_in"], p[f"block_{block}_ffn_out"]
        y = np.maximum(x @ inner["kernel"] + inner["bias"], 0) @ outer["kernel"] + outer["bias"]
        x = norm(x + y, f"block_{block}_norm_ffn")
    np.testing.assert_allclose(encode(model, params, grid[:1], mask)[0], x, atol=2e-5)


def test_sasrec_size_of_the_official_encoder():
    layout = laid_out(np.ones((1, 20), bool))
    params = jax.eval_shape(lambda key: SASRec().init(key, jnp.zeros((20, 128)), layout, False), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == 991_616
