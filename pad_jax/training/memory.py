"""Memory needed and at hand, before training starts."""

from typing import Any

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


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
