"""Settings of any value, on the command line.

Fine is: a configuration or one line; and of one in twenty, a run that ends with exit code 0, or 2 and one line, within
2 GiB more than a run usually needs.
"""

import contextlib
import io
import random
from pathlib import Path
from typing import Any

from tests.faults import shop as shops
from tests.faults.children import in_child, one_line

_NUMBERS = ("0", "-1", "1", "2", "3", "7", "16", "1000", "100000", "2147483647", "2147483648", "-2147483649")
_NUMBERS += ("9007199254740993", "18446744073709551616", "1" + "0" * 400, "0.5", "1e-300", "1e300", "1e999", "nan")
_NUMBERS += ("inf", "-inf", "-0.0", "1e-45", "1e38", "1e39", "0x10", "1_000", "True")
_TEXTS = ("", " ", "a", "None", "[]", "()", "(1,)", "(0, 1)", "('a',)", "(nan,)", "(-1.5, 2)", "{}", "a\nb", "a\0b")
_TEXTS += ("\ud800", "../x", "/", "é", "x" * 5000, "\x1b[31m", "{title", "{}", "{title!r}", "a,b", "(1, 'a')", "1 2")
_MEMORY = 2 << 30
_usual: dict[str, int] = {}


def drawn(draw: random.Random) -> dict[str, str]:
    """One to three fields."""
    from pad_jax.settings import specs

    known = specs()
    found = {}
    for name in draw.sample(sorted(known), draw.choice((1, 1, 2, 3))):
        choices = known[name][2].names()
        values = _NUMBERS if draw.random() < 0.6 else _TEXTS
        found[name + draw.choice(("", "", "", "", "[0]", ".x"))] = draw.choice((*choices, *values))
    return found


def case(shop: Path, number: int, seed: int) -> dict[str, Any]:
    from pad_jax.cli import parse
    from pad_jax.errors import UserError

    draw = random.Random(f"setting {seed} {number}")
    fields = drawn(draw)
    told: dict[str, Any] = {"fields": {name: value[:80] for name, value in fields.items()}, "wrong": ""}
    argv = ["main.py", "--config=table:all", *shops.flags({"method": "pad"} | fields)]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            parse(argv)
    except UserError as error:
        return told | ({"wrong": "more than one line"} if "\n" in str(error) else {})
    except BaseException as error:
        return told | {"wrong": f"{type(error).__name__}: {str(error)[:300]}"}
    if number % 20:
        return told
    folder = shop.with_name("setting")
    if "memory" not in _usual:
        _usual["memory"] = _run(shop, folder, {}).memory
    outcome = _run(shop, folder, fields)
    wrong = one_line(outcome) if outcome.code else ""
    if outcome.memory > _usual["memory"] + _MEMORY:
        wrong = f"{outcome.memory >> 20} MiB, and usually {_usual['memory'] >> 20}"
    return told | {"code": outcome.code, "wrong": wrong, "said": outcome.said[-2000:] if wrong else ""}


def _run(shop: Path, folder: Path, fields: dict[str, str]) -> Any:
    shops.copy(shop, folder)
    short = {"pretrain.epochs": 1, "align.epochs": 1, "finetune.epochs": 1, "method": "pad"}
    return in_child(lambda: shops.command("all", Path("runs/shop/new"), short | fields), folder, timeout=300)
