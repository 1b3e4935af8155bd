"""Registries: what can be chosen by name, of one kind each. A new backbone, loss or expert is one `register` line."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, no_type_check

from pad_jax.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What was registered under a name, by which file, and which section of the configuration is its own."""

    value: T
    source: str
    section: str = ""
    rules: int = 1
    older: Mapping[int, T] = field(default_factory=dict)


class Registry(Generic[T]):
    """Entries of one kind by name; a lookup of an unknown name is a UserError that lists the known ones.

    `field` is the field of the configuration that chooses among them, if there is one.
    """

    def __init__(
        self,
        kind: str,
        field: str = "",
        check: Callable[[str, T, "Registry[T]"], None] | None = None,
        configurable: bool = True,
    ):
        """`configurable` kinds see the configuration where they are used, so their entries may have settings."""
        self.kind, self.field, self._check, self._configurable = kind, field, check, configurable
        self._entries: dict[str, Entry[T]] = {}
        REGISTRIES[kind] = self

    @no_type_check  # a type checker that wraps functions would stand between this one and its caller
    def register(
        self,
        name: str,
        value: T | None = None,
        *,
        settings: type | None = None,
        rules: int = 1,
        older: Mapping[int, T] | None = None,
    ) -> Any:
        """Makes `value` known as `name` and returns it; without `value`, a decorator that does.

        Args:
            name: what the configuration and messages call it.
            value: what the registry's kind asks for.
            settings: a frozen dataclass of fields made by `pad_jax.settings.setting`. It becomes the section
                `config.<name>`, or `config.<kind>s.<name>` where that name is taken.
            rules: of a method, how often its meaning has changed while no field of the configuration did, plus one.
            older: of a method, what it was under each earlier number, for runs that were made then.

        The file that registered a name may do so again, as a notebook cell that is run twice does. Raises UserError
        for a name that another file has registered.
        """
        source = _caller()
        if not re.fullmatch(r"[A-Za-z][\w-]*", name) or (settings is not None and not name.isidentifier()):
            raise UserError(f"{name!r} cannot name a {self.kind}: use letters, digits and underscores")

        def add(value: T) -> T:
            known = self._entries.get(name)
            if known is not None and known.source != source:
                raise UserError(
                    f"the {self.kind} {name!r} of {source} is there already, from {known.source}; choose another name"
                )
            if self._check is not None:
                self._check(name, value, self)
            section = "" if settings is None else self._own_section(name, known, settings, source)
            self._entries[name] = Entry(value, source, section, rules, older or {})
            return value

        return add if value is None else add(value)

    def _own_section(self, name: str, known: Entry[T] | None, settings: type, source: str) -> str:
        if not self._configurable:
            raise UserError(
                f"the {self.kind} {name!r} cannot have settings: a {self.kind} never sees the configuration"
            )
        parameters = getattr(settings, "__dataclass_params__", None)
        loose = [f.name for f in getattr(settings, "__dataclass_fields__", {}).values() if "spec" not in f.metadata]
        if parameters is None or not parameters.frozen or loose:
            what = f"its field {loose[0]!r} is not made by `setting`" if loose else "it must be a frozen dataclass"
            raise UserError(f"the settings of the {self.kind} {name!r}: {what}")
        kinds = f"{self.kind}{'es' if self.kind.endswith('s') else 's'}"
        path = f"{kinds}.{name}" if name in SECTIONS or name in _CHOICES else name
        if known is not None and known.section:
            path = known.section
        SECTIONS._entries[path] = Entry(settings, source)
        return path

    def __getitem__(self, name: str) -> T:
        return self.entry(name).value

    def entry(self, name: str) -> Entry[T]:
        """All that is known of a name. Raises UserError for an unknown one."""
        if name not in self._entries:
            where = f"config.{self.field}={name!r}" if self.field else f"the {self.kind} {name!r}"
            raise UserError(f"{where} is unknown: {one_of(name, self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> list[tuple[str, T]]:
        """(name, value) in the order of registration."""
        return [(name, entry.value) for name, entry in self._entries.items()]


#: Names of the configuration that no section can have.
_CHOICES = ("dataset", "job", "method", "backbone", "loss", "recipe", "recipes", "seed", "start")
#: Every registry by its kind.
REGISTRIES: dict[str, Registry[Any]] = {}
#: Sections of the configuration by dotted name: frozen dataclasses, see `pad_jax.settings`.
SECTIONS: Registry[type] = Registry("section")


def one_of(value: object, choices: Iterable[str]) -> str:
    """The choices, and which of them is near: the second half of a message about an unknown one."""
    names = list(choices)
    near = difflib.get_close_matches(str(value), names, 1)
    return f"one of {', '.join(names)}" + (f"; did you mean {near[0]!r}?" if near else "")


@no_type_check
def _caller() -> str:
    """The file, or in a notebook the name, of the module that called this one."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    path = frame.f_globals.get("__file__")
    return os.path.realpath(path) if path else str(frame.f_globals.get("__name__"))
