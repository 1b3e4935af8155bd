"""Many cases:  python -m tests.faults --cases N --seed S [--only KIND] [--method NAME] [--output FILE]

A line of JSON for each case; cases that the file has are not done again. Ends with 1 if one was not fine.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults import shop as shops

#: How often each kind comes up.
KINDS = {"inputs": 0.5, "nonsense": 0.2, "damage": 0.2, "interrupt": 0.1}


def run(cases: int, seed: int, only: str, output: Path) -> int:
    """The exit code."""
    done: dict[int, bool] = {}
    if output.exists():
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        done = {line["number"]: line["fine"] for line in lines if line["seed"] == seed}
    with tempfile.TemporaryDirectory() as place, open(output, "a") as file:
        os.environ.update(shops.quick())
        import pad_jax.run  # noqa: F401 (every process has it then)

        shop = Path(place, "shop")
        shop.mkdir()
        shops.make(shop)
        for number in (n for n in range(cases) if n not in done):
            kind = only or random.Random(f"kind {seed} {number}").choices(list(KINDS), list(KINDS.values()))[0]
            found = _case(kind, shop, number, seed)
            done[number] = found["fine"]
            file.write(json.dumps(found) + "\n")
            file.flush()
            if not found["fine"]:
                print(json.dumps(found))
    broken = list(done.values()).count(False)
    print(f"{len(done)} cases, {broken} not fine: {output}")
    return 1 if broken else 0


def _case(kind: str, shop: Path, number: int, seed: int) -> dict[str, Any]:
    started = time.monotonic()
    module = importlib.import_module(f"tests.faults.{kind}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = module.case(shop, number, seed)
    except TimeoutError as error:
        found = {"wrong": str(error)}
    seconds = round(time.monotonic() - started, 2)
    return {"kind": kind, "number": number, "seed": seed, "fine": not found["wrong"], "seconds": seconds, **found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(KINDS), default="")
    parser.add_argument("--method", default=shops.SETTINGS["method"])
    parser.add_argument("--output", type=Path, default=Path("faults.jsonl"))
    options = parser.parse_args()
    shops.SETTINGS["method"] = options.method
    sys.exit(run(options.cases, options.seed, options.only, options.output.absolute()))
