"""Search of titles, against a loop over all of them."""

import re
import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pad_jax.service.titles import Titles

WORDS = ["tea", "Teapot", "green", "Crème", "creme", "té", "a", "ab", "ÅB", "12"]


def plain(text):
    letters = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(r"\w+", "".join(letter for letter in letters if not unicodedata.combining(letter)))


def by_hand(titles, counts, query, k):
    asked = plain(query)
    found = []
    for item, title in enumerate(titles):
        words = plain(title)
        begins = " ".join(words).startswith(" ".join(asked))
        if begins or all(any(word.startswith(one) for word in words) for one in asked):
            tier = 0 if begins else 1 if set(asked) <= set(words) else 2
            found.append((tier, -counts[item], item))
    return [item for _, _, item in sorted(found)][:k]


texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(texts, min_size=1, max_size=12),
    st.one_of(texts, st.sampled_from(["te", "gr t", "cr", "zzz", "?"])),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_search_is_that_of_a_loop(titles, query, k, random):
    counts = np.array([random.randrange(4) for _ in titles])
    assert Titles(titles, counts).search(query, k) == by_hand(titles, counts, query, k)


def test_the_order_of_what_matches():
    """The beginning of the title, whole words, beginnings of words, whatever their counts; then counts."""
    titles = ["A green teapot", "A cup of tea", "Tea for two", "Old tea", "Teatime"]
    assert Titles(titles, np.array([9, 3, 1, 5, 0])).search("tea", 5) == [2, 4, 3, 1, 0]


def test_many_matches_are_cut_rightly():
    random = np.random.default_rng(0)
    words = [f"{a}{b}{n}" for a in "abcdefgh" for b in "aeiou" for n in range(20)]
    titles = [" ".join(words[w] for w in random.integers(0, len(words), 6)) for _ in range(3_000)]
    counts = random.integers(0, 100, len(titles))
    index = Titles(titles, counts)
    for query in ("a", "ba1", "ca12 de", titles[17], titles[2_999][:9]):
        assert index.search(query, 10) == by_hand(titles, counts, query, 10)
