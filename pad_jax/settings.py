"""Settings beside the code that reads them, and the tree that they make up: the configuration of a run.

A section is a frozen dataclass whose fields are made by `setting`, which holds all that is known of a field: default,
meaning, unit, bounds, choices, source and its value in each recipe. An entry of a registry brings its section along
(`register(.., settings=MySettings)`), other code says `SECTIONS.register("train", TrainSettings)`. A section that has a
method `check(config)` raises UserError there for combinations that make no sense.

Sources: [P] the paper, [C] the official code where the paper is silent, [V] chosen on the validation data of Prime
Pantry because both leave it open, [O] ours.
"""

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pad_jax.errors import UserError
from pad_jax.registry import REGISTRIES, SECTIONS, one_of

#: A recipe fills every field that neither a config file nor the command line sets.
RECIPES = {
    "paper": "what the paper states, and what it leaves open chosen by validation",
    "official": "what the released code does",
    "best": "ours, chosen by validation on Prime Pantry",
}
_UNSET: Any = object()


@dataclass(frozen=True)
class Spec:
    """What `setting` says of a field."""

    about: str
    source: str = ""
    unit: str = ""
    least: int | float | None = None
    above: int | float | None = None
    below: int | float | None = None
    choices: tuple[str, ...] | str = ()
    finite: bool = True
    was: str = ""
    before: Any = _UNSET
    recipes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def names(self) -> list[str]:
        """The choices; none where every value of the type will do."""
        if self.choices == "recipe":
            return list(RECIPES)
        return list(REGISTRIES[self.choices] if isinstance(self.choices, str) and self.choices else self.choices)

    def bounds(self) -> str:
        """The bounds in words."""
        pairs = (("at least", self.least), ("above", self.above), ("below", self.below))
        return ", ".join(f"{word} {bound}" for word, bound in pairs if bound is not None)


def setting(
    default: Any,
    about: str,
    source: str = "",
    *,
    unit: str = "",
    least: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
    choices: tuple[str, ...] | str = (),
    finite: bool = True,
    was: str = "",
    before: Any = _UNSET,
    paper: Any = _UNSET,
    official: Any = _UNSET,
    best: Any = _UNSET,
) -> Any:
    """A field of a section.

    Args:
        default: its value in no recipe; a tuple's elements are bounded one by one.
        about: what it means, in one line.
        source: P, C, V or O as in the module's docstring, with a word on why.
        unit: what it is counted in.
        least: its smallest value.
        above: what it must be larger than.
        below: what it must be smaller than.
        choices: its possible values, or the kind of a registry whose names they are; of a field that is a number or a
            text, those of the text.
        finite: False where infinity or NaN mean something.
        was: the dotted name that the field had in an earlier version, which is still understood.
        before: what runs did that were made before the field existed; the default where it is not given.
        paper: its value in recipe `paper`.
        official: its value in recipe `official`.
        best: its value in recipe `best`.
    """
    values = {"paper": paper, "official": official, "best": best}
    recipes = {name: value for name, value in values.items() if value is not _UNSET}
    spec = Spec(about, source, unit, least, above, below, choices, finite, was, before, recipes)
    return dataclasses.field(default=default, metadata={"spec": spec})


@dataclass(frozen=True)
class Config:
    """The configuration of a run: the choices people make, and every section as an attribute of its name."""

    dataset: str
    job: str = setting("all", "what is done: a phase, or see --help")
    method: str = setting("pad", "what is trained, in which phases", choices="method")
    backbone: str = setting("sasrec", "network from item vectors of a history to user vectors", choices="backbone")
    loss: str = setting("bce", "recommendation loss", "P", choices="loss", best="ce")
    recipe: str = setting("paper", "which values every field has that is not set", choices="recipe")
    seed: int = setting(0, "of every random draw of training", least=0)
    start: str = setting(
        "", "workdir, or its folder model/, whose parameters training begins with, item by item; empty: fresh ones"
    )

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def config_class() -> type[Config]:
    """`Config` with a field for each section that is registered now."""
    return _class_of(tuple((name, section) for name, section in SECTIONS.items()))


@functools.lru_cache(maxsize=16)
def _class_of(sections: tuple[tuple[str, type], ...]) -> type[Config]:
    tree: dict[str, Any] = {}
    for path, section in sections:
        node = tree
        for part in path.split("."):
            node = node.setdefault(part, {})
        node[""] = section

    def build(name: str, node: dict[str, Any], base: type | None) -> type:
        children = {part: build(part, child, child.get("")) for part, child in node.items() if part}
        if base is not None and not children:
            return base
        fields = [(part, cls, dataclasses.field(default_factory=cls)) for part, cls in children.items()]
        return dataclasses.make_dataclass(name, fields, bases=(base,) if base else (), frozen=True)

    return build("Config", tree, Config)


@functools.lru_cache(maxsize=16)
def _specs_of(cls: Any) -> dict[str, tuple[Any, Any, Spec]]:
    found: dict[str, tuple[Any, Any, Spec]] = {}

    def walk(cls: type, prefix: str) -> None:
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if "spec" in field.metadata:
                found[prefix + field.name] = (hints[field.name], field.default, field.metadata["spec"])
            elif dataclasses.is_dataclass(field.default_factory):
                walk(field.default_factory, f"{prefix}{field.name}.")

    walk(cls, "")
    return found


def specs() -> dict[str, tuple[Any, Any, Spec]]:
    """(type, default, what is known) of every field by its dotted name."""
    cls: Any = config_class()
    return _specs_of(cls)


def aliases() -> dict[str, str]:
    """Names that fields had in earlier versions, and their names today."""
    return {spec.was: name for name, (_, _, spec) in specs().items() if spec.was}


def recipe_values(recipe: str) -> dict[str, Any]:
    """What a recipe sets, by dotted names."""
    return {n: spec.recipes[recipe] for n, (_, _, spec) in specs().items() if recipe in spec.recipes}


def defaults(dataset: str) -> dict[str, Any]:
    """Every field with its default, nested."""
    return dataclasses.asdict(config_class()(dataset))


def build(values: Mapping[str, Any]) -> Config:
    """The configuration of nested values, checked. Raises UserError for one that is out of bounds or unknown."""
    known, tree = specs(), defaults(values["dataset"])
    if not re.fullmatch(r"\w[\w. +-]*", str(values["dataset"])):
        raise UserError(
            f"config.dataset={values['dataset']!r} names a folder under runs/: use letters, digits, spaces and . _ + -"
        )
    for name, value in dotted(values).items():
        if name != "dataset":
            check_field(name)
            value = _checked(name, value, *known[name])
        put(tree, name, value)
    config = _assemble(tree)
    for path in SECTIONS:
        part = functools.reduce(getattr, path.split("."), config)
        if hasattr(part, "check"):
            part.check(config)
    return config


def _assemble(values: Mapping[str, Any]) -> Config:
    def instance(cls: type, values: Mapping[str, Any]) -> Any:
        parts = {f.name: f.default_factory for f in dataclasses.fields(cls) if "spec" not in f.metadata}
        nested = {n: v for n, v in values.items() if dataclasses.is_dataclass(parts.get(n))}
        made = {n: instance(parts[n], v) for n, v in nested.items()}  # type: ignore[arg-type]
        return cls(**{**values, **made})

    return instance(config_class(), values)


def with_fields(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with other values of some fields, given by dotted names. Raises UserError as `build`."""
    values = as_dict(config)
    for name, value in changes.items():
        put(values, name, value)
    return build(values)


def restored(values: Mapping[str, Any]) -> Config:
    """The configuration that a file of this or an earlier version holds.

    Fields that it does not know mean what they did before they existed. Names and sections that nobody has registered
    are those of training code that is not needed here: the former are kept as they are, the latter left out.
    """
    known, found = specs(), dotted(canonical(values))
    tree: dict[str, Any] = defaults(found["dataset"])
    for name, value in (as_before() | {n: v for n, v in found.items() if n in known}).items():
        kind, default, spec = known[name]
        put(tree, name, _checked(name, value, kind, default, dataclasses.replace(spec, choices=())))
    return _assemble(tree)


def canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same nested values with every field under the name it has today."""
    flat, renamed = dotted(values), aliases()
    tree: dict[str, Any] = {}
    for name, value in sorted(flat.items(), key=lambda field: field[0] not in renamed):
        put(tree, renamed.get(name, name), value)
    return tree


def as_before() -> dict[str, Any]:
    """By dotted names, what a run did that knows nothing of a field."""
    return {n: default if s.before is _UNSET else s.before for n, (_, default, s) in specs().items()}


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested dictionaries."""
    return dataclasses.asdict(config)


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as dotted names and values."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def put(tree: dict, name: str, value: Any) -> None:
    """Sets a dotted name of nested dictionaries."""
    *parents, last = name.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def check_field(name: str) -> None:
    """Raises UserError with the nearest field for a dotted name that is none."""
    known = specs()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise UserError(f"config.{name} is not a field" + (f"; did you mean {near[0]!r}?" if near else ""))


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises UserError with the nearest choice when `value` is none of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise UserError(f"config.{name}={value!r} is unknown: {one_of(value, choices)}")


def _checked(name: str, value: Any, kind: Any, _: Any, spec: Spec) -> Any:
    """The value, whole numbers made numbers. Raises UserError for one of another type, or out of bounds."""
    several = typing.get_origin(kind) is tuple
    if several and not isinstance(value, tuple | list):
        raise UserError(f"config.{name} must be {_words(kind)}, not {value!r}")
    for part in value if several else (value,):
        element = typing.get_args(kind)[0] if several else kind
        if not _is_a(part, element):
            raise UserError(f"config.{name} must be {_words(kind)}, not {value!r}")
        if spec.choices and element == float | str:
            if isinstance(part, str) and part not in spec.names():
                raise UserError(f"config.{name} must be a number or one of {', '.join(spec.names())}, not {value!r}")
        elif spec.choices:
            check_choice(name, part, spec.names())
        if isinstance(part, str) and ("\0" in part or (not part.isprintable() and not _is_unicode(part))):
            raise UserError(f"config.{name} must be Unicode without NUL, not {value!r}")
        if isinstance(part, bool | str):
            continue
        if isinstance(part, int) and abs(part) >= 2**53:
            raise UserError(f"config.{name} must be a number of reasonable size, not {str(value)[:40]}")
        if spec.finite and not math.isfinite(part):
            raise UserError(f"config.{name} must be finite, not {value!r}")
        low = spec.least is not None and part < spec.least
        low = low or (spec.above is not None and part <= spec.above)
        if low or (spec.below is not None and part >= spec.below):
            raise UserError(f"config.{name} must be {spec.bounds()}, not {value!r}")
    if several:
        return tuple(float(part) if typing.get_args(kind)[0] is float else part for part in value)
    return float(value) if kind is float or (kind == float | str and not isinstance(value, str)) else value


def _is_unicode(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        return False


def _is_a(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_is_a(value, part) for part in kind.__args__)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _words(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        return f"a tuple of {'numbers or texts' if isinstance(element, types.UnionType) else _KINDS[element][1]}"
    return " or ".join(_KINDS[part][0] for part in typing.get_args(kind) or (kind,))


_KINDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("True or False", "truth values"),
}
