"""Search of titles as they are typed: words and beginnings of words, what training met most first."""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

_LAST = "\U0010ffff"  # behind every letter


class Titles:
    """An index of N titles.

    A word of the query matches words that begin with it, and every word has to match. First come titles that begin with
    the whole query, then those that have all its words whole, then the others; among equals what training met most.
    Case and accents make no difference.
    """

    def __init__(self, titles: Sequence[str], counts: Int[np.ndarray, " N"]):
        self._order = np.argsort(-counts, kind="stable")  # items by training count; a place in it is a "rank" below
        plain = [_words(titles[item]) for item in self._order]
        whole = [" ".join(words) for words in plain]
        self._by_title = np.array(sorted(range(len(whole)), key=whole.__getitem__), np.int64)
        self._titles = [whole[rank] for rank in self._by_title]
        ranks_of: dict[str, list[int]] = {}
        for rank, words in enumerate(plain):
            for word in set(words):
                ranks_of.setdefault(word, []).append(rank)
        self._vocabulary = sorted(ranks_of)
        lengths = [len(ranks_of[word]) for word in self._vocabulary]
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        found = [rank for word in self._vocabulary for rank in ranks_of[word]]
        self._ranks = np.array(found, np.int64)  # words that begin alike are neighbours, and so are their titles

    def search(self, query: str, k: int) -> list[int]:
        """The places of at most k items in `titles`, best first; for a query without a word what training met most."""
        words = _words(query)
        if not words:
            return self._order[:k].tolist()
        count = len(self._order)
        every, all_whole = np.ones(count, bool), np.ones(count, bool)
        for word in words:
            low, high = bisect_left(self._vocabulary, word), bisect_left(self._vocabulary, word + _LAST)
            every &= self._in(low, high)
            there = low < high and self._vocabulary[low] == word
            all_whole &= self._in(low, low + there)
        begin = " ".join(words)
        first = self._by_title[bisect_left(self._titles, begin) : bisect_left(self._titles, begin + _LAST)]
        tier = np.where(all_whole, 1, 2)
        tier[first] = 0
        every[first] = True
        ranks = np.flatnonzero(every)
        keys = tier[ranks] * count + ranks
        best = np.sort(np.partition(keys, k - 1)[:k] if len(keys) > k else keys)
        return self._order[best % count].tolist()

    def _in(self, low: int, high: int) -> Bool[np.ndarray, " N"]:
        """Which ranks have a word of vocabulary[low:high]."""
        found = np.zeros(len(self._order), bool)
        found[self._ranks[self._starts[low] : self._starts[high]]] = True
        return found


def _words(text: str) -> list[str]:
    """Without case and accents."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(r"\w+", "".join(letter for letter in letters if not unicodedata.combining(letter)))
