"""Backbones: from the item vectors of a history to a state after every event."""

from collections.abc import Callable

import flax.linen as nn

from pad_jax.registry import Registry
from pad_jax.settings import Config

#: A backbone is a function of the configuration that returns a module; the module's
#: `__call__(x [T, D], layout, train)` returns states [T, D]. Token t may look at tokens of its own user up to itself:
#: `layout.seen` says which these are, `layout.grid` moves tokens to rows of users and back.
BACKBONES: Registry[Callable[[Config], nn.Module]] = Registry("backbone", "backbone")
