"""Memory needed and at hand, before training starts."""

from typing import Any

import jax

from pad_jax import parallel
from pad_jax.console import say
from pad_jax.errors import UserError


def bytes_of(run: Any, arguments: tuple) -> int:
    """What one device needs for `run(*arguments)` as XLA plans it: arguments, results and temporaries."""
    sizes = run.lower(*arguments).compile().memory_analysis()
    total = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return total - sizes.alias_size_in_bytes


def check(run: Any, arguments: tuple, aloud: bool) -> None:
    """Says, if `aloud`, what one device needs for `run(*arguments)` and has; raises UserError when it cannot fit."""
    needed = bytes_of(run, arguments)
    at_hand, where = parallel.memory_at_hand()
    if aloud:
        say(f"memory: {_gib(needed)} needed, {_gib(at_hand)} at hand ({where})")
    if needed > at_hand:
        raise UserError(
            f"training needs {_gib(needed)} of memory and {_gib(at_hand)} are at hand on {where}: lower "
            "config.train.batch or config.model.width, use config.loss=sampled_softmax, or add devices"
        )


def check_parameters(params: Any) -> None:
    """Raises UserError where parameters of these shapes cannot be trained in the memory at hand, before they are made.

    AdamW keeps two moments of each, and a step has its gradient.
    """
    needed = 4 * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params))
    at_hand, where = parallel.memory_at_hand()
    if needed > at_hand:
        raise UserError(
            f"the parameters alone, their gradients and AdamW's moments need {_gib(needed)} of memory and "
            f"{_gib(at_hand)} are at hand on {where}: lower config.model.width, or leave items out"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
