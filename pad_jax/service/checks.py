"""What a request may say: everything else is refused in one line."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pad_jax.service import ServeSettings

POPULARITY = 100.0  # largest dial, either way


class RefusedError(Exception):
    """A request that is not answered: an HTTP status and one line."""

    def __init__(self, status: int, text: str):
        super().__init__(one_line(text))
        self.status = status


def one_line(text: str) -> str:
    """At most 300 characters that a terminal and a log can bear."""
    text = "".join(letter if letter.isprintable() else " " for letter in text[:2000])
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:298] + ".."


def body_of(content: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises RefusedError."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        found = json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON ({str(error)[:80]})") from error
    if not isinstance(found, dict):
        raise RefusedError(400, "the body must be a JSON object")
    return found


class Fields:
    """The fields of a request, which are checked as they are taken."""

    def __init__(self, values: Mapping[str, Any], names: Iterable[str], settings: ServeSettings):
        self._values, self._settings = values, settings
        names = list(names)
        for name in values:
            if name not in names:
                raise RefusedError(400, f"unknown field {name[:40]!r}: it is one of {', '.join(names)}")

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def identifier(self, name: str) -> str | None:
        value = self._values.get(name)
        return None if value is None else _as_id(name, value)

    def ids(self, name: str, most: int) -> list[str]:
        """Ids, [] for none."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise RefusedError(400, f"{name} must be a list of ids")
        if len(value) > most:
            raise RefusedError(400, f"{name} has {len(value):,} ids, more than {most:,}")
        return [_as_id(f"{name}[{place}]", one) for place, one in enumerate(value)]

    def length(self, default: int, most: int) -> int:
        """`k`, from 1 to `most`."""
        value = self._values.get("k")
        if isinstance(value, str):  # of a query
            value = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
        if value is None:
            return min(default, most)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise RefusedError(400, f"k must be a whole number from 1 to {most:,}")
        return value

    def number(self, name: str, least: float, most: float, below: bool = False) -> float:
        """A number between bounds, 0 where it is not given; with `below` not `most` itself."""
        value = self._values.get(name)
        if value is None:
            return 0.0
        fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not fine or not least <= value <= most or (below and value == most):
            raise RefusedError(400, f"{name} must be a number from {least:g} to {'below ' if below else ''}{most:g}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            raise RefusedError(400, f"{name} must be true or false")
        return default if value is None else value

    def text(self, name: str, default: str, most: int = 200) -> str:
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > most:
            raise RefusedError(400, f"{name} must be text of at most {most} letters")
        return value


def _as_id(name: str, value: Any) -> str:
    if isinstance(value, str) and len(value) <= 1000:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return str(value)
    raise RefusedError(400, f"{name} must be an id: text or a whole number")
