"""Ranks by sorting."""

import numpy as np


def brute_force_rank(scores, target, history):
    """Sort the candidates of one user, place ties at the mean of their places; a target among none is never a hit."""
    candidates = [i for i in range(1, len(scores)) if i not in set(history)]
    if target not in candidates:
        return max(len(candidates), 1000) + 1
    places = [
        place for place, i in enumerate(sorted(candidates, key=lambda i: -scores[i]), 1) if scores[i] == scores[target]
    ]
    return np.mean(places)
