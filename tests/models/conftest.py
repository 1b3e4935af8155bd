"""Histories of several lengths."""

import numpy as np
import pytest

from tests.support.states import LENGTH, WIDTH


@pytest.fixture
def histories():
    random = np.random.default_rng(0)
    mask = np.arange(LENGTH) >= np.array([0, 2, 5, 3])[:, None]
    grid = (random.normal(size=(4, LENGTH, WIDTH)) * mask[..., None]).astype(np.float32)
    return grid, mask
