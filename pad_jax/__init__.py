"""PAD: pre-train, align and disentangle sequential recommenders with language-model text embeddings.

Dimension letters, everywhere: B users of a batch, U users, L history length, T tokens (positions without padding),
W = L + 1 window slots and V window events (inputs and the last target), N items (1..N), I = N + 1 rows of an item table
(row 0 is padding), D model width, E text width, K experts, F widths of all experts together, R rows of anything.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pad_jax.version import VERSION as __version__

if TYPE_CHECKING:
    from pad_jax.errors import UserError
    from pad_jax.fitting import fit
    from pad_jax.serving import Model, Recommendations, load
    from pad_jax.training.loop import Epoch

__all__ = ["Epoch", "Model", "Recommendations", "UserError", "__version__", "fit", "load"]

#: Where the names stand that are imported when they are first asked for: JAX takes seconds, and only `fit` needs all.
_HOMES = {
    "Epoch": "training.loop",
    "Model": "serving",
    "Recommendations": "serving",
    "UserError": "errors",
    "fit": "fitting",
    "load": "serving",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in ("fit", "load"):
            import_module("pad_jax.builtin")  # the parts of a model go by their names
        return getattr(import_module(f"pad_jax.{_HOMES[name]}"), name)
