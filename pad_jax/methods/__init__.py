"""Methods: what is trained, in which phases."""

from collections.abc import Callable

from pad_jax.config import Config
from pad_jax.methods.base import Method
from pad_jax.methods.pad import pad, sasrec

#: Every method by name, as a function of the configuration; another one is an entry more.
METHODS: dict[str, Callable[[Config], Method]] = {"pad": pad, "sasrec": sasrec}
