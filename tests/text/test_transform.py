"""What text vectors go through before training."""

import numpy as np

from pad_jax.text.transform import fit


def test_transforms():
    random = np.random.default_rng(0)
    rows = (random.normal(size=(40, 6)) * np.arange(1, 7) + 3).astype(np.float32)
    np.testing.assert_array_equal(fit(rows, "none", 4)(rows), rows)
    standard = fit(rows, "standardize", 4)(rows)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standard.std(axis=0), 1, rtol=1e-5)
    principal = fit(rows, "principal", 4)(rows)
    centred = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (u * s)[:, :4]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(principal), np.abs(expected), atol=1e-5)
    assert fit(rows, "principal", 9)(rows).shape == (40, 9)


def test_rows_of_new_items_go_through_the_same_transform():
    random = np.random.default_rng(0)
    rows, new = random.normal(size=(40, 6)).astype(np.float16), random.normal(size=(3, 6)).astype(np.float16)
    for kind in ("none", "standardize", "principal"):
        both = fit(rows, kind, 4)
        np.testing.assert_array_equal(both(np.concatenate([rows, new]))[40:], both(new))
