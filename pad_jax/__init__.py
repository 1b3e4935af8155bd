"""PAD: pre-train, align and disentangle sequential recommenders with language-model text embeddings.

Dimension letters, everywhere: B users of a batch, U users, L history length, T tokens (positions without padding),
W = L + 1 window slots and V window events (inputs and the last target), N items (1..N), I = N + 1 rows of an item table
(row 0 is padding), D model width, E text width, K experts, F widths of all experts together, R rows of anything.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pad_jax.version import VERSION as __version__

if TYPE_CHECKING:
    from pad_jax.serving import Recommender

__all__ = ["__version__", "load"]


def load(workdir: "str | Path") -> "Recommender":
    """The trained model of a workdir: top-k lists, vectors, new items.

    Raises `pad_jax.errors.UserError` where the workdir holds none.
    """
    from pad_jax import builtin, serving  # slow to import

    del builtin
    return serving.load(workdir)
