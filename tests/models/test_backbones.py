"""What every backbone owes: causality, and states that padding, other rows and devices do not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.models.caser import Caser
from pad_jax.models.gru4rec import GRU4Rec
from pad_jax.models.sasrec import SASRec
from tests.support.states import LENGTH, encode, start

BACKBONES = {
    "sasrec-post": SASRec(blocks=2, heads=2),
    "sasrec-pre": SASRec(blocks=2, heads=2, norm="pre"),
    "gru4rec": GRU4Rec(hidden=8),
    "caser": Caser(),
}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return BACKBONES[request.param]


def test_causality_by_gradient(backbone, histories):
    """No state depends on a later event, and every state depends on every event up to itself."""
    grid, mask = histories
    grid, mask = grid[:1], mask[:1]
    params = start(backbone, mask)
    jacobian = jax.jit(jax.jacrev(lambda g: encode(backbone, params, g, mask)[0]))(jnp.asarray(grid))[:, :, 0]
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
