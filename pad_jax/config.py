"""The configuration before it is parsed: what a file under `configs/` returns.

Importing this module registers everything that the package brings, so a config file finds every name. The fields stand
beside the code that reads them; `python main.py --explain=FIELD` says what is known of one, docs/settings.md lists all.
"""

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

import pad_jax.builtin  # noqa: F401 (registers)
from pad_jax.data.readers import READERS
from pad_jax.errors import UserError
from pad_jax.registry import SECTIONS
from pad_jax.settings import (
    RECIPES,
    Config,
    aliases,
    build,
    canonical,
    check_choice,
    check_field,
    defaults,
    dotted,
    put,
    recipe_values,
    specs,
)


class Fields(ConfigDict):
    """A ConfigDict that remembers which of its fields were assigned after it was made, whatever the value."""

    def __init__(self, values: Mapping[str, Any] | None = None, prefix: str = "", assigned: set[str] | None = None):
        object.__setattr__(self, "_record", None)
        super().__init__()
        record: set[str] = set() if assigned is None else assigned
        for name, value in (values or {}).items():
            self[name] = Fields(value, f"{prefix}{name}.", record) if isinstance(value, Mapping) else value
        object.__setattr__(self, "_record", (prefix, record))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if self._record is not None:
            prefix, assigned = self._record
            assigned.add(prefix + key)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        object.__setattr__(self, "_record", state["_record"])

    def assigned(self) -> set[str]:
        """The dotted names of these fields."""
        return set(self._record[1])


def config_dict(
    dataset: str, job: str = "all", recipes: Mapping[str, Mapping] | None = None, **choices: Any
) -> ConfigDict:
    """The configuration of a dataset before parsing.

    `recipes` are the dataset's own additions to each recipe, `choices` are of `Config`: method, backbone, loss, recipe,
    seed. What is assigned to a field of the result wins over the recipe, as `choices` do; a field can also be set under
    a name that it had in an earlier version.
    """
    known = {field.name for field in dataclasses.fields(Config)} - {"dataset", "job"}
    for name in choices:
        if name not in known:
            raise UserError(f"config_dict has no choice {name!r}: set fields of sections as config.SECTION.{name} = ..")
    values = defaults(dataset)
    for name, (kind, default, _) in specs().items():
        if isinstance(kind, types.UnionType):  # otherwise its type is that of its default
            put(values, name, FieldReference(default, field_type=object))
    config = Fields({**values, "job": job or "all", **choices})
    for old, new in aliases().items():
        *parents, last = new.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        _section(config, old)[old.rpartition(".")[2]] = node.get_ref(last)
    merged: dict[str, dict[str, Any]] = {}
    for recipe in RECIPES:
        merged[recipe] = {}
        for name, value in (recipe_values(recipe) | dotted(canonical((recipes or {}).get(recipe, {})))).items():
            put(merged[recipe], name, value)
    config.recipes = ConfigDict(merged)
    config._record[1].clear()
    config._record[1].update(choices)
    return config


def configure(dataset: str, settings: Mapping[str, Any]) -> Config:
    """The Config of a dataset under settings, nested or by dotted names: that of a config file that assigns them.

    Raises UserError for a name that is no field, with the nearest one, and as `resolve`.
    """
    config, renamed = config_dict(dataset), aliases()
    flat = dotted(settings)
    for name in flat:
        check_field(renamed.get(name, name))
    with config.ignore_type():  # `resolve` says in one line what has another type
        for name, value in flat.items():
            _section(config, name)[name.rpartition(".")[2]] = value
    return resolve(config)


def _section(config: ConfigDict, name: str) -> ConfigDict:
    """Where a dotted name stands; sections that no longer exist are made."""
    for parent in name.split(".")[:-1]:
        if parent not in config:
            config[parent] = ConfigDict()
        config = config[parent]
    return config


def resolve(config: ConfigDict, given: Iterable[str] = ()) -> Config:
    """The frozen Config: defaults, then the reader's, then the recipe, then what was assigned to fields, whatever the
    value.

    `given` are dotted names that were set elsewhere, as by the command line. Raises UserError for a value outside its
    choices or bounds.
    """
    if isinstance(config, Fields):
        given = {*given, *config.assigned()}
    values = config.copy_and_resolve_references().to_dict()
    recipes = values.pop("recipes")
    check_choice("recipe", values["recipe"], RECIPES)
    renamed = aliases()
    kept = {name: value for name, value in dotted(values).items() if name not in renamed}
    set_by_hand = {renamed.get(name, name) for name in given}
    for name in set_by_hand & set(specs()) - set(kept):  # an empty dictionary has no dotted names
        raise UserError(f"config.{name} cannot be a dictionary")
    reader = kept["data.reader"] or kept["dataset"]
    filled = {**(READERS[reader].defaults if reader in READERS else {}), **dotted(recipes[values["recipe"]])}
    filled = {name: value for name, value in filled.items() if name not in set_by_hand}
    tree: dict[str, Any] = {}
    for name, value in (kept | filled).items():
        put(tree, name, value)
    return build(tree)


def explain(name: str) -> str:
    """What is known of a field, of all fields of a section, or with `all` of everything, as Markdown.

    Raises UserError for a name that is none.
    """
    known = specs()
    name = aliases().get(name, name)
    if name == "all":
        return _all_fields()
    fields = [n for n in known if n == name or n.startswith(name + ".")]
    if not fields:
        near = difflib.get_close_matches(name, [*known, *SECTIONS], 3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "--explain=all lists every field"
        raise UserError(f"config.{name} is not a field of the configuration; {hint}")
    return "\n\n".join(_explained(field) for field in fields)


def _explained(name: str) -> str:
    _, default, spec = specs()[name]
    lines = [f"config.{name} = {default!r}", f"  {spec.about}"]
    facts = {
        "unit": spec.unit,
        "bounds": spec.bounds(),
        "choices": ", ".join(spec.names()),
        "source": _source(spec.source),
        "recipes": ", ".join(f"{recipe} {value!r}" for recipe, value in spec.recipes.items()),
        "readers": _by_reader(name),
        "earlier name": spec.was,
    }
    return "\n".join([*lines, *(f"  {title}: {text}" for title, text in facts.items() if text)])


def _by_reader(name: str) -> str:
    return ", ".join(f"{n} {r.defaults[name]!r}" for n, r in READERS.items() if name in r.defaults)


_SOURCES = {
    "P": "the paper",
    "C": "the official code",
    "V": "chosen on validation data of Prime Pantry",
    "O": "ours",
}


def _source(text: str) -> str:
    letter, rest = text[:1], text[1:].lstrip(" ,;")
    if letter not in _SOURCES or text[1:2].isalnum():
        return text
    return f"{_SOURCES[letter]}{'; ' + rest if rest else ''}"


def _all_fields() -> str:
    sections: dict[str, list[str]] = {}
    for name in specs():
        sections.setdefault(name.rpartition(".")[0], []).append(name)
    lines = ["# Settings", "", "Set as `--config.NAME=VALUE`, or in a config file as `config.NAME = VALUE`."]
    lines += ["", "Recipes:", "", *(f"- `{name}`: {about}" for name, about in RECIPES.items())]
    lines += ["", "This page was made by `python main.py --explain=all`."]
    for section, names in sections.items():
        lines += ["", f"## {section or 'Choices'}", ""]
        lines += ["| field | default | what it is | bounds, choices | source | recipes, readers |", "| --- " * 6 + "|"]
        for name in names:
            _, default, spec = specs()[name]
            limits = "; ".join(filter(None, [spec.bounds(), ", ".join(f"`{c}`" for c in spec.names())]))
            recipes = ", ".join(f"{recipe} `{value!r}`" for recipe, value in spec.recipes.items())
            if own := _by_reader(name):
                recipes = f"{recipes}; reader {own}".removeprefix("; ")
            about = spec.about + (f" ({spec.unit})" if spec.unit else "")
            cells = [f"`{name}`", f"`{default!r}`", about, limits, _source(spec.source), recipes]
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join(lines)
