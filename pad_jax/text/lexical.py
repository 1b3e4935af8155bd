"""Texts as the words in them: tf-idf, exact and sparse, without torch."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import scipy.sparse

_WORD = re.compile(r"\w+")


def tfidf(texts: Sequence[str]) -> scipy.sparse.csr_matrix:
    """Unit rows [N, V] float32 over the words of the texts, in lower case, and the pairs of neighbouring ones.

    A feature that the text has n times, and d of N texts have, weighs (1 + log n) (1 + log((1 + N) / (1 + d))). A text
    without words is a row of zeros.
    """
    number: dict[object, int] = {}
    ends, features = [0], []
    for text in texts:
        words = _WORD.findall(text.lower())
        features += [number.setdefault(feature, len(number)) for feature in (*words, *pairwise(words))]
        ends.append(len(features))
    shape = len(texts), len(number)
    matrix = scipy.sparse.csr_matrix((np.ones(len(features)), np.array(features, np.int64), np.array(ends)), shape)
    matrix.sum_duplicates()
    found = np.bincount(matrix.indices, minlength=len(number))
    matrix.data = (1 + np.log(matrix.data)) * (1 + np.log((1 + len(texts)) / (1 + found)))[matrix.indices]
    return unit_sparse(matrix).astype(np.float32)


def unit_sparse(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Rows at length 1, zeros as they are."""
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return scipy.sparse.diags(1 / np.where(length > 0, length, 1)).dot(matrix).tocsr()
