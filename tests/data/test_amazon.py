"""Amazon reviews and ratings: what is read, what is skipped and said."""

import html

import numpy as np
import pytest

import pad_jax.data.readers as readers
from tests.support.data import sequences
from tests.support.raw_data import amazon
from tests.support.readers import in_folder


@pytest.mark.parametrize("reviews", [True, False])
def test_amazon_files_give_the_histories_back(tmp_path, reviews):
    random = np.random.default_rng(1)
    items = {f"B{n:09d}": f"Tea & <b>cake</b> {n}" for n in range(50)}
    histories = {f"A{u:03d}": list(random.choice(list(items), random.integers(5, 30))) for u in range(40)}
    amazon(tmp_path, histories, items, reviews)
    data = readers.load(in_folder("electronics", tmp_path))
    assert sequences(data) == {user: list(events[-23:]) for user, events in histories.items()}
    assert all(title.startswith("Tea & <b>cake</b>") for title in data.titles)
    assert list(data.item_ids) == [i for i in items if i in {x for e in histories.values() for x in e[-23:]}]


def test_prime_pantry_from_raw_ratings_is_the_authors_file(tmp_path, pantry_config):
    """A raw file in random order, with low ratings and strangers mixed in, gives users, items and events back."""
    authors = readers.load(pantry_config)
    items = {i: html.unescape(t) for i, t in zip(authors.item_ids, authors.titles, strict=True)}
    amazon(tmp_path, sequences(authors), items, reviews=False)
    data = readers.load(in_folder("electronics", tmp_path))
    assert list(data.user_ids) == list(authors.user_ids)
    assert list(data.item_ids) == list(authors.item_ids)
    np.testing.assert_array_equal(data.events, authors.events)
    np.testing.assert_array_equal(data.starts, authors.starts)
    assert [html.unescape(t) for t in data.titles] == [html.unescape(t).strip() for t in items.values()]
