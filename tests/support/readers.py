"""Configurations of raw files, and a shop's two tables."""

from collections.abc import Callable

from pad_jax.errors import UserError
from pad_jax.settings import Config
from tests.support.data import default_config

EVENTS = "user,item,time\n" + "".join(f"u{u},i{(u + n) % 7},{100 * n + u}\n" for u in range(4) for n in range(6))
ITEMS = "item,title,brand\n" + "".join(f'i{n},"Thing, {n}",B{n % 2}\n' for n in range(9))


def in_folder(dataset: str, folder, **fields) -> Config:
    """A dataset in a folder; `fields` are of the section `data`."""
    return default_config(dataset, {"data.path": str(folder), **{f"data.{name}": v for name, v in fields.items()}})


def mind_config(folder, **fields) -> Config:
    return in_folder("mind", folder, **fields)


def table_config(folder, data=None, **fields) -> Config:
    """The shop in a folder; `fields` are of the section `table`, `data` of `data`."""
    paths = {"events": str(folder / "events.csv"), "catalogue": str(folder / "items.csv")}
    chosen = {f"table.{name}": value for name, value in (paths | fields).items()}
    chosen |= {f"data.{name}": value for name, value in ({"reader": "table"} | (data or {})).items()}
    return default_config("shop", chosen)


def readable(load: Callable) -> None:
    """Runs a reader: a dataset, or one line for the user."""
    message = ""
    try:
        load().split("test", 3)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
