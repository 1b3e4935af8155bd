"""Methods: what is trained, in which phases. Each is one short file."""

from collections.abc import Callable

from pad_jax.config import Config
from pad_jax.methods.base import Method
from pad_jax.methods.ctrl import ctrl
from pad_jax.methods.disco import disco
from pad_jax.methods.hybrid import hybrid
from pad_jax.methods.make import make
from pad_jax.methods.morec import morec
from pad_jax.methods.pad import pad
from pad_jax.methods.sasrec import sasrec
from pad_jax.methods.smem import smem

#: Every method by name, as a function of the configuration; another one is an entry more.
METHODS: dict[str, Callable[[Config], Method]] = {
    "sasrec": sasrec,
    "hybrid": hybrid,
    "morec": morec,
    "ctrl": ctrl,
    "make": make,
    "disco": disco,
    "smem": smem,
    "pad": pad,
}
