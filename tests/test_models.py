"""Backbones and towers: causality, padding, and the definitions written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.data.batches import device_data
from pad_jax.models.caser import Caser
from pad_jax.models.dropout import dropout
from pad_jax.models.gate import Gate
from pad_jax.models.gru4rec import GRU4Rec
from pad_jax.models.sasrec import SASRec
from pad_jax.models.scorer import Scorer, vectors_of
from pad_jax.models.towers import Dense, TextMLP, TextResidual
from tests.conftest import laid_out

LENGTH, WIDTH = 6, 8
BACKBONES = {
    "sasrec-post": SASRec(blocks=2, heads=2),
    "sasrec-pre": SASRec(blocks=2, heads=2, norm="pre"),
    "gru4rec": GRU4Rec(hidden=8),
    "caser": Caser(),
}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return BACKBONES[request.param]


def encode(backbone, params, grid, mask, spare=0, key=None, first_row=0):
    """Histories as a grid in, states as a grid out."""
    layout = laid_out(mask, first_row, spare)
    rngs = {} if key is None else {"dropout": key}
    states = backbone.apply(params, layout.grid.to_tokens(jnp.asarray(grid)), layout, key is not None, rngs=rngs)
    return layout.grid.to_grid(states)


@pytest.fixture
def histories():
    random = np.random.default_rng(0)
    mask = np.arange(LENGTH) >= np.array([0, 2, 5, 3])[:, None]
    grid = (random.normal(size=(4, LENGTH, WIDTH)) * mask[..., None]).astype(np.float32)
    return grid, mask


def start(backbone, mask, noise=0.3):
    layout = laid_out(mask)
    params = backbone.init(jax.random.key(0), jnp.zeros((len(layout.grid.cell), WIDTH)), layout, False)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + noise * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


def test_causality_by_gradient(backbone, histories):
    """No state depends on a later event, and every state depends on every event up to itself."""
    grid, mask = histories
    grid, mask = grid[:1], mask[:1]
    params = start(backbone, mask)
    jacobian = jax.jacrev(lambda g: encode(backbone, params, g, mask)[0])(jnp.asarray(grid))[:, :, 0]
    reach = np.abs(jacobian).max(axis=(1, 3))  # [state, event]
    assert not reach[~np.tri(LENGTH, dtype=bool)].any()
    assert (reach[np.tri(LENGTH, dtype=bool)] > 0).all()


def test_padding_changes_nothing(backbone, histories):
    """Neither the unused tail, nor other rows, nor what stands in empty slots matters."""
    grid, mask = histories
    params = start(backbone, mask)
    states = encode(backbone, params, grid, mask)
    spare = encode(backbone, params, np.where(mask[..., None], grid, 7.0).astype(np.float32), mask, spare=2)
    np.testing.assert_allclose(spare, states, atol=1e-6)
    for row in range(len(mask)):
        alone = encode(backbone, params, grid[row : row + 1], mask[row : row + 1])
        np.testing.assert_allclose(alone[0], states[row], atol=1e-6)


@pytest.mark.parametrize("name", ["sasrec-post", "sasrec-pre", "gru4rec"])
def test_a_padded_history_is_encoded_like_the_history_alone(name, histories):
    """A window of its own length, without one empty slot, gives the same states. Caser sees empty slots as zeros."""
    grid, mask = histories
    backbone = BACKBONES[name]
    params = start(backbone, mask)
    states = encode(backbone, params, grid, mask)
    for row, filled in enumerate(mask.sum(axis=1)):
        cut = {k: v[-filled:] if k == "positions" else v for k, v in params["params"].items()}
        alone = encode(backbone, {"params": cut}, grid[row : row + 1, -filled:], mask[row : row + 1, -filled:])
        np.testing.assert_allclose(alone[0], states[row, -filled:], atol=1e-5)


def test_dropout_belongs_to_the_row(backbone, histories):
    """A row draws the same dropout wherever it is computed: what makes losses independent of the device count."""
    grid, mask = histories
    params = start(backbone, mask)
    key = jax.random.key(3)
    states = encode(backbone, params, grid, mask, key=key)
    other = encode(backbone, params, grid[2:], mask[2:], spare=3, key=key, first_row=2)
    np.testing.assert_allclose(other, states[2:], atol=1e-6)
    assert np.abs(np.asarray(states) - np.asarray(encode(backbone, params, grid, mask))).max() > 1e-3


def test_sasrec_written_out(histories):
    """The post-norm network in plain numpy on one unpadded history."""
    grid, _ = histories
    mask = np.ones((1, LENGTH), bool)
    model = SASRec(blocks=2, heads=2)
    params = start(model, mask)
    p = jax.tree.map(np.asarray, params["params"])

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p[name]["scale"] + p[name]["bias"]

    x = norm(grid[0] + p["positions"], "norm_input")
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
    params = SASRec().init(jax.random.key(0), jnp.zeros((20, 128)), laid_out(np.ones((1, 20), bool)), False)
    assert sum(x.size for x in jax.tree.leaves(params)) == 991_616


def test_gru4rec_written_out(histories):
    """The recurrence in plain numpy, left padding skipped."""
    grid, mask = histories
    model = GRU4Rec(hidden=8)
    params = start(model, mask)
    p = jax.tree.map(np.asarray, params["params"])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for row in range(len(mask)):
        state = np.zeros(8)
        for slot in np.flatnonzero(mask[row]):
            x = np.split(grid[row, slot] @ p["gru_0_input"]["kernel"], 3)
            h = np.split(state @ p["gru_0_state"], 3)
            reset, update = sigmoid(x[0] + h[0]), sigmoid(x[1] + h[1])
            state = (1 - update) * np.tanh(x[2] + reset * h[2]) + update * state
        expected = state @ p["dense"]["kernel"] + p["dense"]["bias"]
        np.testing.assert_allclose(encode(model, params, grid, mask)[row, -1], expected, atol=1e-5)


def test_caser_written_out(histories):
    """Every filter over every window in plain numpy."""
    grid, mask = histories
    model = Caser(horizontal=2, vertical=3)
    params = start(model, mask)
    p = jax.tree.map(np.asarray, params["params"])
    states = encode(model, params, grid, mask)
    for row, slot in ((0, 5), (0, 2), (1, 3), (2, 5)):
        window = np.zeros((LENGTH, WIDTH))
        window[LENGTH - 1 - slot :] = grid[row, : slot + 1]
        features = [*(p["vertical"].T @ window + p["vertical_bias"][:, None]).reshape(-1)]
        for f in range(2 * LENGTH):
            height = f // 2 + 1
            slid = [
                (window[s : s + height] * p["horizontal"][:height, :, f]).sum() + p["horizontal_bias"][f]
                for s in range(LENGTH - height + 1)
            ]
            features.append(max(0, *slid))
        expected = np.maximum(np.array(features) @ p["fc1"]["kernel"] + p["fc1"]["bias"], 0)
        np.testing.assert_allclose(states[row, slot], expected, atol=1e-4)


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


# (bucket, aligned_start) -> (id, aligned, text), computed from the official formula.
GATES = {
    (1, -4.0): (0.5677, 0.0130, 0.4192),
    (5, -4.0): (0.496, 0.009, 0.496),
    (10, -4.0): (0.404, 0.005, 0.591),
    (1, 0.2): (0.404, 0.298, 0.298),
    (10, 0.2): (0.324, 0.201, 0.474),
}


@pytest.mark.parametrize("kind", ["bucket", "bucket_emb"])
@pytest.mark.parametrize(("bucket", "aligned"), GATES)
def test_gate_starts_where_the_official_one_does(kind, bucket, aligned):
    gate = Gate(("id", "aligned", "text"), 10, kind, (1.0, aligned, 0.0))
    vectors = tuple(jax.random.normal(jax.random.key(k), (1, WIDTH)) for k in range(3))
    params = gate.init(jax.random.key(0), vectors, jnp.array([bucket]))
    weights = gate.apply(params, vectors, jnp.array([bucket]))[0]
    np.testing.assert_allclose(weights, GATES[bucket, aligned], atol=6e-4)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_gate_formula_in_float64():
    """sigmoid(a_k[b]) / sum_j sigmoid(a_j[b]) to 1e-9."""
    with jax.enable_x64(True):
        gate = Gate(("id", "aligned", "text"), 10, "bucket", (1.0, -4.0, 0.0))
        vectors = (jnp.zeros((11, 2)),) * 3
        params = gate.init(jax.random.key(0), vectors, jnp.arange(11))
        weights = np.asarray(gate.apply(params, vectors, jnp.arange(11)), np.float64)
        logits = np.stack([np.linspace(1, 0, 11), np.linspace(-4, -5, 11), np.linspace(0, 1, 11)], axis=-1)
        sigmoid = 1 / (1 + np.exp(-logits))
        np.testing.assert_allclose(weights, sigmoid / sigmoid.sum(-1, keepdims=True), rtol=1e-9)


def test_shared_gate_does_not_know_the_bucket():
    vectors = (jnp.zeros((2, WIDTH)),) * 3
    for kind, same in (("shared", True), ("bucket", False)):
        gate = Gate(("id", "aligned", "text"), 10, kind)
        params = gate.init(jax.random.key(0), vectors, jnp.array([1, 10]))
        weights = np.asarray(gate.apply(params, vectors, jnp.array([1, 10])))
        assert np.array_equal(weights[0], weights[1]) == same


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "caser"])
def test_bfloat16_is_the_same_function_in_fewer_digits(make_config, dataset, text, backbone):
    """User and item vectors of PAD's three experts differ by less than 3 %, but do differ; parameters stay float32."""
    data = jax.tree.map(jnp.asarray, device_data(dataset, 8, 10, text))
    layout = laid_out(np.asarray(data.windows[:, 1:] > 0))
    ids = jnp.take(data.windows[:, 1:].reshape(-1), layout.grid.cell, mode="clip")
    found, inputs = {}, None
    for dtype in ("float32", "bfloat16"):
        config = make_config(model__dtype=dtype)
        scorer = Scorer(config.model, config.gate, backbone, ("id", "aligned", "text"), 10, 8)
        params = scorer.init(jax.random.key(0), dataset.items, text.shape[1])
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
        items = scorer.item_vectors(params, jnp.arange(dataset.items + 1), data)
        inputs = inputs or jax.tree.map(lambda x: x[ids], vectors_of(items))
        found[dtype] = [scorer.users(params, inputs, layout), scorer.gated(params, items, data.bucket)]
    for exact, rough in zip(found["float32"], found["bfloat16"], strict=True):
        assert rough.dtype == jnp.float32
        assert 1e-4 < jnp.linalg.norm(rough - exact) / jnp.linalg.norm(exact) < 0.03
