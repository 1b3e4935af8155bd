"""What text vectors go through before training."""

import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.text import transform
from pad_jax.text.lexical import Lexicon
from pad_jax.text.transform import TRANSFORMS, fit, unit, whiten
from tests.support.data import small_config


def config(kind, width=4, **fields):
    return small_config(text__transform=kind, model__width=width, **fields)


def test_transforms():
    random = np.random.default_rng(0)
    rows = (random.normal(size=(40, 6)) * np.arange(1, 7) + 3).astype(np.float32)
    np.testing.assert_array_equal(fit(rows, config("none"))(rows), rows)
    standard = fit(rows, config("standardize"))(rows)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standard.std(axis=0), 1, rtol=1e-5)
    principal = fit(rows, config("principal"))(rows)
    centred = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (u * s)[:, :4]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(principal), np.abs(expected), atol=1e-5)
    assert fit(rows, config("principal", 10))(rows).shape == (40, 10)
    assert fit(rows, config("principal", text__components=3))(rows).shape == (40, 3)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_whitening_is_the_singular_value_decomposition(exponent):
    """Singular values to the power 1 - p, on the rank that the vectors have; unit length; any width of the model."""
    random = np.random.default_rng(0)
    rows = (random.normal(size=(40, 3)) @ random.normal(size=(3, 6)) + 2).astype(np.float32)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    expected = u[:, :3] * s[:3] ** (1 - exponent)
    found = fit(rows, config("whiten", text__exponent=exponent))
    assert found(rows).shape == (40, 3)
    np.testing.assert_allclose(np.abs(found(rows)), np.abs(unit(expected)), atol=1e-4)
    if exponent == 1:
        turned = centred @ found.arrays["matrix"]
        np.testing.assert_allclose(turned.T @ turned / len(rows), np.eye(3), atol=1e-4)
    assert fit(rows, config("whiten", text__components=2))(rows).shape == (40, 2)


@pytest.mark.parametrize("rows", [np.ones((5, 4)), np.zeros((5, 4)), np.eye(4)[:1], np.ones((5, 1))])
def test_vectors_without_directions_are_whitened_to_numbers(rows):
    assert np.isfinite(whiten(rows.astype(np.float32), 1.0)(rows.astype(np.float32))).all()


def test_rows_of_new_items_go_through_the_same_transform():
    random = np.random.default_rng(0)
    rows, new = random.normal(size=(40, 6)).astype(np.float16), random.normal(size=(3, 6)).astype(np.float16)
    for kind in TRANSFORMS:
        both = fit(rows, config(kind))
        np.testing.assert_array_equal(both(np.concatenate([rows, new]))[40:], both(new))


@pytest.fixture
def words():
    """Sparse rows of 60 texts, of which some are equal and one is empty."""
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in random.zipf(1.4, 4) % 40) for _ in range(50)]
    texts += [*texts[:9], ""]
    return Lexicon.fit(texts).rows(texts)


@pytest.mark.parametrize("small", [512, 4])
@pytest.mark.parametrize("kind", ["principal", "whiten"])
def test_sparse_rows_have_the_directions_of_dense_ones(words, kind, small, monkeypatch):
    """Exactly centred, by a Gram matrix or by Lanczos; every row by itself; the same bits each time."""
    monkeypatch.setattr(transform, "_SMALL", small)
    dense, of = words.toarray(), config(kind, text__components=6)
    found = fit(words, of)
    np.testing.assert_allclose(found(words), fit(dense, of)(dense), atol=2e-4)
    assert found.arrays["matrix"].dtype == np.float32
    np.testing.assert_allclose(found(words), found(dense), atol=1e-5)
    np.testing.assert_array_equal(found(words)[40:], found(words[40:]))
    np.testing.assert_array_equal(found(words), fit(words, of)(words))
    assert fit(words, config(kind, 6))(words).shape == (60, 6)


@pytest.mark.parametrize("small", [512, 1])
def test_sparse_rows_of_fewer_directions(small, monkeypatch):
    """Zeros fill up principal ones, and rounding is no direction to whiten."""
    monkeypatch.setattr(transform, "_SMALL", small)
    for texts, rank in ((["a", "b", "c", "a"] * 5, 2), (["same"] * 9, 0), (["", "", "a"], 1)):
        rows = Lexicon.fit(texts).rows(texts)
        principal = fit(rows, config("principal"))(rows)
        assert principal.shape == (len(texts), 4)
        assert (np.abs(principal).max(axis=0) > 0).sum() == rank
        white = fit(rows, config("whiten"))(rows)
        assert np.isfinite(white).all()
        assert white.shape[1] == max(rank, 1)


def test_what_needs_rows_whole_refuses_sparse_ones(words):
    for kind in ("none", "standardize"):
        with pytest.raises(UserError, match=f"text.transform={kind} cannot .* lexical table: use principal or whiten"):
            fit(words, config(kind))
