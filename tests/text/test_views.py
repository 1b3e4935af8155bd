"""Views of texts, and neighbours in training prefixes."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pad_jax.data.dataset import from_sequences
from pad_jax.errors import UserError
from pad_jax.text.examples import examples
from pad_jax.text.views import neighbours, parts_of, view, views
from tests.support.data import small_config


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=9), st.sampled_from([0.0, 0.2, 0.4, 0.9]), st.integers(0, 9)
)
def test_a_view_is_some_of_the_parts_and_always_the_first(parts, drop, seed):
    found = view(parts, drop, np.random.default_rng(seed))
    numbered = view([f"{n} {part}" for n, part in enumerate(parts)], drop, np.random.default_rng(seed))
    assert Counter(found) <= Counter(parts)
    assert f"0 {parts[0]}" in numbered
    assert len(set(numbered)) == len(numbered)
    dropped = 0 if not drop or len(parts) == 1 else max(1, int(drop * len(parts)))
    assert len(found) == max(len(parts) - dropped, 1)
    assert found == view(parts, drop, np.random.default_rng(seed))


def test_views_are_random_and_every_later_part_goes_now_and_then():
    random, texts = np.random.default_rng(0), ["a; b; c; d; e", "x", "p; q"]
    drawn = [views(texts, "; ", 0.4, random) for _ in range(200)]
    first = Counter(part for row in drawn for part in row[0].split("; "))
    assert first["a"] == 200
    assert all(70 < first[part] < 130 for part in "bcde")  # two of four stay
    assert {row[1] for row in drawn} == {"x"}
    assert {row[2] for row in drawn} == {"p"}
    assert {row[0][0] for row in drawn} == set("abcde")  # in any order


def test_parts_of_odd_texts():
    assert parts_of(" a ;b;  ; c", ";") == ["a", "b", "c"]
    assert parts_of("", "; ") == [""]
    assert parts_of("; ; ", "; ") == ["; ; "]


SEQUENCES = [[1, 2, 3, 3, 4, 9, 8], [2, 1, 5, 6, 7], [1, 2, 7, 9]]


def world(sequences=SEQUENCES, titles=None):
    titles = titles or [f"t{n}, x" for n in range(9)]
    return from_sequences("w", [f"i{n}" for n in range(9)], titles, [f"u{n}" for n in range(3)], sequences)


def test_neighbours_are_those_of_training_prefixes():
    data, number = world(), np.arange(-1, 9)
    pairs, weight = neighbours(data, number)
    expected = []
    for sequence in SEQUENCES:
        prefix = sequence[:-2]
        expected += [(a, b) for a, b in pairwise(prefix) if a != b]
    assert [tuple(pair + 1) for pair in pairs] == expected
    np.testing.assert_allclose(weight, [1 / np.sqrt(data.counts[a] * data.counts[b]) for a, b in expected])
    flipped = world([[*s[:-2], s[-1], s[-2]] for s in SEQUENCES])
    for one, other in zip((pairs, weight), neighbours(flipped, number), strict=True):
        np.testing.assert_array_equal(one, other)
    number[2] = number[1]  # equal texts of items 1 and 2
    assert [tuple(pair) for pair in neighbours(data, number)[0]] == [(0, 2), (2, 3), (0, 4)]


def test_examples_of_neighbours_keep_what_is_held_out(dataset):
    config = small_config(**{"tune.kind": "neighbours", "tune.batch": 4, "tune.held_out": 0.2})
    found = examples(dataset, config)
    part = found.draw(np.random.default_rng(0))
    assert found.size == len(part.target) == 24
    assert len(part.texts) == 48
    assert all(part.texts[n] == f"title {a}" for n, a in enumerate(part.target.T.reshape(-1)))
    other = small_config(**{"tune.batch": 4, "tune.held_out": 0.2, "tune.separator": " "})  # holds the same out
    held = set(examples(dataset, other).held_out.target[:, 0])
    assert len(held) == 6
    assert not held & set(part.target.reshape(-1))
    assert all(held & set(pair) for pair in found.held_out.target)


def test_equal_texts_are_one_example_and_views_are_drawn_anew(dataset):
    data = replace(dataset, titles=[f"a, {n % 10}, b, c" for n in range(30)])
    config = small_config(**{"tune.batch": 4, "tune.held_out": 0.2})
    found = examples(data, config)
    assert found.size == 8
    epochs = [found.draw(np.random.default_rng(n)) for n in (0, 0, 1)]
    assert epochs[0].texts == epochs[1].texts
    assert epochs[0].texts != epochs[2].texts
    once = examples(data, replace(config, tune=replace(config.tune, redraw=False)))
    for which, same in ((found, False), (once, True)):
        parts = [which.draw(np.random.default_rng(n)) for n in (0, 1)]
        drawn = [sorted(zip(part.target[:, 0], part.texts[:8], part.texts[8:], strict=True)) for part in parts]
        assert (drawn[0] == drawn[1]) == same
        assert parts[0].target.tolist() != parts[1].target.tolist()  # in another order
    assert len(once.held_out.texts) == 2 * len(once.held_out.target) == 4


def test_too_few_texts_are_one_line(dataset):
    for fields, message in (
        ({"tune.batch": 64}, r"config.tune.batch=64 is more than the 28 different texts"),
        ({"tune.separator": "; "}, r"no text of tiny has two parts with config.tune.separator='; '"),
        ({"tune.kind": "neighbours", "tune.held_out": 0.0}, ""),
    ):
        config = small_config(**{"tune.batch": 4} | fields)
        if message:
            with pytest.raises(UserError, match=message):
                examples(dataset, config)
        else:
            assert not len(examples(dataset, config).held_out.target)
    with pytest.raises(UserError, match=r"config.tune.separator must not be empty"):
        small_config(**{"tune.separator": ""})
