"""Lists from an approximate index over a model's vectors, and how many items of the exact lists they have.

    pip install usearch
    python examples/approximate.py WORKDIR EVENTS [K]

EVENTS is a table of events (user, item, time), whose users get lists. For catalogues of millions of items, where going
through all of them takes longer than a service may.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
from usearch.index import Index

import pad_jax


def index_of(model: pad_jax.Model) -> Index:
    """The items a model may list, by their numbers in `item_ids`; refuses one whose score is no inner product."""
    vectors = model.item_vectors()
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
    listed = [n for n, item in enumerate(model.item_ids) if item not in model.artifact.retired]
    index.add(np.array(listed), vectors[listed])
    return index


def lists(model: pad_jax.Model, index: Index, histories: Sequence[Sequence[str]], k: int) -> list[list[str]]:
    """Top-k items of each history without those in it: as many more are asked for as a history has."""
    users, most = model.user_vectors(histories), max(len(set(history)) for history in histories)
    found = index.search(users, min(k + most, len(index)))
    rows = np.atleast_2d(found.keys)
    named = [[model.item_ids[n] for n in row] for row in rows]
    return [[i for i in row if i not in met][:k] for row, met in zip(named, map(set, histories), strict=True)]


def main(workdir: str, events: str, k: int = 10) -> float:
    """Prints and returns the share of the exact lists' items that the approximate lists have."""
    model = pad_jax.load(workdir, events)
    histories = [history for history in model.histories["history"].to_list() if set(history) & set(model.item_ids)]
    index = index_of(model)
    lists(model, index, histories, k)  # compiles the encoder
    started = time.perf_counter()
    approximate = lists(model, index, histories, k)
    taken = time.perf_counter() - started
    exact = model.recommend(histories, k).items
    shared = [len(set(one) & set(other) - {""}) for one, other in zip(approximate, exact, strict=True)]
    recall = sum(shared) / max((exact != "").sum(), 1)
    print(f"{len(histories):,} lists of {k} from {len(index):,} items in {taken:.2f} s: {recall:.4f} of the exact ones")
    return recall


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
