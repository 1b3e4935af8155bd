"""Methods: what is trained, in which phases. Each is one short file."""

from pad_jax.methods.registry import METHODS

__all__ = ["METHODS"]
