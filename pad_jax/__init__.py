"""PAD: pre-train, align and disentangle sequential recommenders with language-model text embeddings.

Dimension letters, everywhere: B users of a batch, U users, L history length, T tokens (positions without padding),
W = L + 1 and V window slots and events (inputs and the last target), N items (1..N), I = N + 1 rows of an item table
(row 0 is padding), D model width, E text width, K experts, F = K * D, R rows of anything.
"""

from importlib.metadata import PackageNotFoundError, version
from platform import python_version

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"pad_jax": __version__, "python": python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
