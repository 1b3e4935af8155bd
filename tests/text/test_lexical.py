"""Words and pairs of them as sparse rows."""

import numpy as np
import pytest

from pad_jax.text.lexical import Lexicon

TEXTS = ["Green tea, green", "tea green", "", "GREEN"]


def test_words_are_lower_case_and_pairs_are_neighbours():
    lexicon = Lexicon.fit(TEXTS)
    np.testing.assert_allclose(lexicon.weights, 1 + np.log(5 / np.array([4, 3, 2, 3])), rtol=1e-12)
    rows = lexicon.rows(TEXTS)
    assert rows.shape == (4, 4)  # green, tea, green tea, tea green
    np.testing.assert_allclose(rows.multiply(rows).sum(axis=1).A1, [1, 1, 0, 1], rtol=1e-6)
    assert (rows @ rows.T)[0, 3] > (rows @ rows.T)[1, 3]


def test_what_it_does_not_know_counts_nothing_and_arrays_are_all_it_is():
    lexicon = Lexicon.fit(TEXTS)
    again = Lexicon.restored(lexicon.arrays)
    assert list(again.number) == ["green", "tea", "green tea", "tea green"]
    rows, known = (
        again.rows(["a green ü", "ü", "Green-tea"]).toarray(),
        lexicon.rows(["green", "", "green tea"]).toarray(),
    )
    np.testing.assert_array_equal(rows, known)
    assert Lexicon.restored(Lexicon.fit(["", "-"]).arrays).rows(["x"]).shape == (1, 0)
    for wrong in ({"weights": lexicon.weights[:-1]}, {"features": lexicon.arrays["features"].astype(np.int32)}):
        with pytest.raises(ValueError, match="lexicon"):
            Lexicon.restored(lexicon.arrays | wrong)
