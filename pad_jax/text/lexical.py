"""Texts as the words in them: tf-idf, exact and sparse, without torch."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse
from jaxtyping import Float, Num

_WORD = re.compile(r"\w+")
_END = "\n"  # of a feature where all are one text: no word has it


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The words of some texts, in lower case, and the pairs of neighbouring ones: tf-idf of these and of other texts.

    Feature f of d out of N texts has the weight 1 + log((1 + N) / (1 + d)).
    """

    number: Mapping[str, int]  # of each feature; that of a pair has a space in it
    weights: Float[np.ndarray, " V"]

    @classmethod
    def fit(cls, texts: Sequence[str], least: int = 1) -> "Lexicon":
        """That of these texts: the features that `least` of them have."""
        number: dict[str, int] = {}
        found = _counted(texts, lambda feature: number.setdefault(feature, len(number)), number)
        texts_with = np.bincount(found.indices, minlength=len(number))
        kept = texts_with >= least
        names = [name for name, stays in zip(number, kept, strict=True) if stays]
        weights = 1 + np.log((1 + len(texts)) / (1 + texts_with[kept]))
        return cls({name: n for n, name in enumerate(names)}, weights)

    def rows(self, texts: Sequence[str]) -> scipy.sparse.csr_matrix:
        """Unit rows [N, V] float32: a feature that a text has n times has its weight times 1 + log n.

        What the lexicon does not know counts nothing; a text of nothing that it knows is a row of zeros.
        """
        matrix = _counted(texts, self.number.get, self.number)
        matrix.data = (1 + np.log(matrix.data)) * self.weights[matrix.indices]
        return unit_sparse(matrix).astype(np.float32)

    @property
    def arrays(self) -> dict[str, Num[np.ndarray, "..."]]:
        """All that it is."""
        return {"features": np.frombuffer(_END.join(self.number).encode(), np.uint8), "weights": self.weights}

    @classmethod
    def restored(cls, arrays: Mapping[str, Num[np.ndarray, "..."]]) -> "Lexicon":
        """From its `arrays`. Raises ValueError for others."""
        features, weights = arrays["features"], arrays["weights"]
        names = features.tobytes().decode().split(_END) if features.size else []
        found = cls({name: n for n, name in enumerate(names)}, weights)
        if features.dtype != np.uint8 or weights.dtype != np.float64 or weights.shape != (len(found.number),):
            raise ValueError("its lexicon is not one")
        return found


def _counted(
    texts: Sequence[str], number_of: Callable[[str], int | None], numbers: Mapping[str, int]
) -> scipy.sparse.csr_matrix:
    """[N, V]: how often each text has each of the features, V of which `numbers` knows in the end."""
    ends, features = [0], []
    for text in texts:
        features += [number for name in _features(text) if (number := number_of(name)) is not None]
        ends.append(len(features))
    shape = len(texts), len(numbers)
    matrix = scipy.sparse.csr_matrix((np.ones(len(features)), np.array(features, np.int64), np.array(ends)), shape)
    matrix.sum_duplicates()
    return matrix


def _features(text: str) -> Iterator[str]:
    words = _WORD.findall(text.lower())
    yield from words
    yield from map(" ".join, pairwise(words))


def unit_sparse(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Rows at length 1, zeros as they are."""
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return scipy.sparse.diags(1 / np.where(length > 0, length, 1)).dot(matrix).tocsr()


def with_padding(rows: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """[N + 1, V]: an empty row 0 before them."""
    return scipy.sparse.vstack([scipy.sparse.csr_matrix((1, rows.shape[1]), dtype=rows.dtype), rows]).tocsr()
