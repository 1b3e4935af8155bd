"""Pairs of texts that an encoder is to draw together: two views of an item's, or those of neighbouring items."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from pad_jax.data.dataset import Dataset


def parts_of(text: str, separator: str) -> list[str]:
    """The parts of a text that are not blank; the text itself where there is none."""
    return [part.strip() for part in text.split(separator) if part.strip()] or [text]


def view(parts: Sequence[str], drop: float, random: np.random.Generator) -> list[str]:
    """The parts in random order without the last floor(drop n) of them, one at least, none of a single one.

    Differs: LLMEmb's code (Liu et al. 2025) drops none of one or two parts, and of one attribute nothing is left since
    the name of an item is no attribute there; here the first part, which mostly names the item, always stays.
    """
    n = len(parts)
    dropped = min(max(int(drop * n), 1), n - 1) if drop else 0
    order = random.permutation(n)
    out = set(order[order > 0][n - 1 - dropped :])
    return [parts[i] for i in order if i not in out]


def views(texts: Sequence[str], separator: str, drop: float, random: np.random.Generator) -> list[str]:
    """A view of each text."""
    return [separator.join(view(parts_of(text, separator), drop, random)) for text in texts]


def neighbours(
    dataset: Dataset, number: Int[np.ndarray, " I"]
) -> tuple[Int[np.ndarray, "P 2"], Float[np.ndarray, " P"]]:
    """Texts of events that follow each other in a training prefix, and the weight of each pair.

    A pair weighs 1 / sqrt(count_i count_j) each time it occurs, with training counts: a popular item is drawn no more
    often than its neighbours would have it.

    Args:
        dataset: whose validation and test events are not looked at.
        number: text of each item; pairs of equal texts are left out.
    """
    cuts, place, lengths = dataset.cuts, np.arange(len(dataset.events)), np.diff(dataset.starts)
    follows = (place > np.repeat(cuts.first, lengths)) & (place < np.repeat(cuts.train_end, lengths))
    second = np.flatnonzero(follows)
    items = np.stack([dataset.events[second - 1], dataset.events[second]], axis=1)
    texts = number[items]
    other = texts[:, 0] != texts[:, 1]
    return texts[other], 1 / np.sqrt(dataset.counts[items[other]].prod(axis=1))
