"""The methods by name."""

from collections.abc import Callable

from pad_jax.errors import UserError
from pad_jax.registry import Registry
from pad_jax.settings import Config
from pad_jax.training.phase import Method

#: A method is a function of the configuration that returns its phases.
METHODS: Registry[Callable[[Config], Method]] = Registry("method", "method")


def method_of(config: Config, rules: int | None = None) -> Method:
    """The method of a configuration; `rules` is the number of its rules when a run was made, None for today's.

    A method whose meaning changes while no field of the configuration does is registered with a higher number, and with
    what it was before, so that runs made then are still evaluated and served. Raises UserError for a number that is not
    known.
    """
    entry = METHODS.entry(config.method)
    if rules is None or rules == entry.rules:
        return entry.value(config)
    if rules not in entry.older:
        raise UserError(
            f"the run was made under rules {rules} of the method {config.method!r}, and this version knows "
            f"{', '.join(map(str, sorted({*entry.older, entry.rules})))}: use the version that made it"
        )
    return entry.older[rules](config)
