"""Caser against plain numpy."""

import jax
import numpy as np

from pad_jax.models.caser import Caser
from tests.support.states import LENGTH, WIDTH, encode, start


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
