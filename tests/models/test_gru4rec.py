"""GRU4Rec against plain numpy."""

import jax
import numpy as np

from pad_jax.models.gru4rec import GRU4Rec
from tests.support.states import encode, start


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
