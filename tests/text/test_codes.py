"""Quantisers of texts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.text import codes
from pad_jax.text.codes import CodesSettings

SMALL = CodesSettings(books=3, size=8, latent=4, hidden=(16, 8), steps=60)
I, J = np.arange(4)[:, None], np.arange(3)[None]
ZS, ZT = np.sin(1 + I + 2 * J), np.cos(1 + 2 * I + J) + 0.5


@pytest.fixture(scope="module")
def clustered():
    random = np.random.default_rng(0)
    centres = random.normal(size=(20, 12))
    return (centres[random.integers(20, size=150)] + 0.3 * random.normal(size=(150, 12)) + 2).astype(np.float32)


def distances(z, books):
    """Squared, [n, M, K]."""
    return ((np.asarray(z, np.float64)[:, :, None] - np.asarray(books, np.float64)[None]) ** 2).sum(axis=-1)


def test_the_codes_and_distances_of_a_small_case():
    with jax.enable_x64(True):
        z = jnp.asarray(ZS)[:, None].repeat(2, axis=1)
        books = jnp.stack([jnp.asarray(ZT[:2]), jnp.asarray(ZT[2:])])
        parts, found = codes.losses(lambda y: y, jnp.asarray(ZS), z, books)
        assert found.T.tolist() == [[0, 0, 1, 1], [1, 1, 1, 0]]
        by_book = [((z - codes.rows_of(books, found)) ** 2)[:, m].mean() for m in (0, 1)]
        np.testing.assert_allclose(by_book, [0.185255077059, 0.955018177114], rtol=0, atol=1e-9)
        np.testing.assert_allclose(parts["rebuilt"], 0.373786359120, rtol=0, atol=1e-9)  # Dec is the identity
        np.testing.assert_allclose(parts["books"], sum(by_book), rtol=0, atol=1e-9)
        np.testing.assert_allclose(parts["encoder"], sum(by_book) / 4, rtol=0, atol=1e-9)


def test_gradients_are_those_at_the_quantised_vector():
    """The encoder's that of the decoder's loss at q, the books' and the encoder's own by hand."""
    with jax.enable_x64(True):
        random = np.random.default_rng(1)
        x, weights = (jnp.asarray(random.normal(size=shape)) for shape in ((6, 5), (3, 5)))
        z, books = (jnp.asarray(random.normal(size=shape)) for shape in ((6, 2, 3), (2, 4, 3)))

        def decode(y):
            return jnp.tanh(y @ weights)

        def part(name):
            return jax.grad(lambda z, b: codes.losses(decode, x, z, b)[0][name], argnums=(0, 1))(z, books)

        rows = np.take_along_axis(np.asarray(books), distances(z, books).argmin(axis=2).T[..., None], axis=1)
        rows = rows.swapaxes(0, 1)
        expected = jax.grad(lambda q: ((x - decode(q)) ** 2).mean())(rows.mean(axis=1))
        of_z, of_books = part("rebuilt")
        np.testing.assert_allclose(of_z.sum(axis=1), expected, atol=1e-12)
        assert not of_books.any()
        of_z, of_books = part("encoder")
        np.testing.assert_allclose(of_z, 0.25 * 2 * (z - rows) / 18, atol=1e-12)
        assert not of_books.any()
        of_z, of_books = part("books")
        assert not of_z.any()
        np.testing.assert_allclose(of_books.sum(axis=1), -2 * (z - rows).sum(axis=0) / 18, atol=1e-12)


@pytest.mark.parametrize("kind", ["moc", "product", "random"])
def test_codes_are_the_nearest_and_most_are_in_use(clustered, kind):
    settings = dataclasses.replace(SMALL, kind=kind)
    quantiser = codes.learn(clustered, settings, seed=3)
    again = codes.learn(clustered, settings, seed=3)
    assert jax.tree.map(np.array_equal, quantiser, again) == jax.tree.map(lambda _: True, quantiser)
    found = np.asarray(codes.assign(quantiser, settings, clustered))
    z = codes.latents(quantiser, settings, jnp.asarray(clustered))
    np.testing.assert_array_equal(found, distances(z, quantiser["books"]).argmin(axis=2))
    assert all(len(np.unique(book)) > 4 for book in found.T)
    for row in (7, 149):  # alone it has the codes that it has in company
        np.testing.assert_array_equal(codes.assign(quantiser, settings, clustered[row : row + 1])[0], found[row])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert codes.mutual_information(found[:, a], found[:, b]) < 0.95
    if kind == "product":
        z = np.asarray((clustered - quantiser["mean"]) * quantiser["scale"])
        for m in range(3):
            near = distances(z[:, None, 4 * m : 4 * m + 4], quantiser["books"][m : m + 1])
            np.testing.assert_array_equal(near.argmin(axis=2)[:, 0], found[:, m])


def test_learned_codes_tell_more_of_the_texts_and_own_heads_are_learned(clustered):
    settings = dataclasses.replace(SMALL, heads=True, learning_rate=1e-2)
    before, after = (codes.learn(clustered, dataclasses.replace(settings, steps=n), 0) for n in (0, 300))
    assert (before["heads"] != after["heads"]).any()
    assert (before["heads"][0] != before["heads"][1]).any()

    def explained(quantiser):
        """How much of the texts' variance the codes have, each code as the mean of its items."""
        found = np.asarray(codes.assign(quantiser, settings, clustered))
        one_hot = np.concatenate([np.eye(8)[book] for book in found.T], axis=1)
        rest = clustered - one_hot @ np.linalg.lstsq(one_hot, clustered, rcond=None)[0]
        return 1 - (rest**2).sum() / ((clustered - clustered.mean(axis=0)) ** 2).sum()

    assert explained(after) > explained(before) + 0.02


def test_books_that_start_alike_stay_alike():
    """Equal books see the same and have the same gradients; those that `started` draws differ."""

    class Same(np.random.Generator):  # draws the same points again and again
        def permutation(self, count):
            return np.arange(count)

    z = jnp.asarray(np.random.default_rng(2).normal(size=(64, 1, 4)).astype(np.float32)).repeat(2, axis=1)
    alike = codes.started([z, z], 8, Same(np.random.PCG64(0)))
    np.testing.assert_array_equal(alike[0], alike[1])
    gradient = jax.grad(lambda b: sum(codes.losses(lambda y: y, z[:, 0], z, b)[0].values()))(alike)
    np.testing.assert_array_equal(gradient[0], gradient[1])
    books = codes.started([z, z], 8, np.random.default_rng(0))
    one, other = np.asarray(codes.nearest(z, books)).T
    assert codes.mutual_information(one, other) < 0.9


def test_kmeans_is_lloyds():
    z = np.random.default_rng(4).normal(size=(40, 1, 2)).astype(np.float32)
    book = z[:5, 0].copy()
    book[4] = 100  # nearest to nothing
    expected = book.copy()
    for _ in range(20):
        near = distances(z, expected[None]).argmin(axis=2)[:, 0]
        expected = np.stack([z[near == k, 0].mean(axis=0) if (near == k).any() else expected[k] for k in range(5)])
    np.testing.assert_allclose(codes.kmeans(jnp.asarray(z), jnp.asarray(book[None]))[0], expected, atol=1e-5)
    assert (expected[4] == 100).all()


def test_a_dead_code_comes_back(clustered, monkeypatch):
    """Codes that are put out of reach at the start are of use again after the steps that it takes to see it."""
    started = codes.started
    monkeypatch.setattr(codes, "started", lambda *given: started(*given).at[:, 2:].set(1e3))
    monkeypatch.setattr(codes, "_RESEED", 20)
    used = []
    for steps in (19, 40):
        settings = dataclasses.replace(SMALL, steps=steps)
        found = np.asarray(codes.assign(codes.learn(clustered, settings, 0), settings, clustered))
        used.append([len(np.unique(book)) for book in found.T])
    assert used[0] == [2, 2, 2]
    assert min(used[1]) > 4


def test_mutual_information_and_the_line_of_it():
    random = np.random.default_rng(0)
    first = random.integers(4, size=4000)
    assert codes.mutual_information(first, 3 - first) == pytest.approx(1)
    assert codes.mutual_information(first, random.integers(4, size=4000)) < 0.01
    half = np.where(first < 2, 0, 1)  # one bit of two: 2 * 1 / (2 + 1)
    assert codes.mutual_information(first, half) == pytest.approx(2 / 3, abs=1e-3)
    line = codes.summary(np.stack([first, half], axis=1).astype(np.int32), 8)
    assert line == "4,000 items, 2 books; of 8 codes in use 4, 2; mutual information of two books 0.67, shuffled 0.00"
    assert codes.summary(np.zeros((3, 1), np.int32), 8) == "3 items, 1 books; of 8 codes in use 1"


def test_texts_that_are_all_the_same_and_slices_that_cannot_be(clustered):
    same = np.ones((5, 4), np.float32)
    for kind in ("moc", "product", "random"):
        settings = dataclasses.replace(SMALL, kind=kind, steps=0)
        quantiser = codes.learn(same, settings, 0)
        assert np.isfinite(quantiser["books"]).all()
        assert len(np.unique(np.asarray(codes.assign(quantiser, settings, same)), axis=0)) == 1
    with pytest.raises(UserError, match="cuts 2 numbers into books=3 slices: set fewer"):
        codes.learn(clustered[:, :2], dataclasses.replace(SMALL, kind="product"), 0)
