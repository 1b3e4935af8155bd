"""The tables of the jobs, what every library's answer has to be, and how lines are counted."""

import ast
import importlib
import io
import json
import os
import subprocess
import sys
import textwrap
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pad_jax.errors import UserError

HERE = Path(__file__).parent
#: The file of each library, and what installs it.
LIBRARIES = {
    "ours": ("ours.py", "pip install ."),
    # It needs NumPy below 2, and JAX one from 2 on.
    "rectools": (
        "rectools_.py",
        "pip install 'rectools[lightfm,torch]==0.19.0' polars rich, in an environment of its own",
    ),
    "implicit": ("implicit_.py", "pip install implicit==0.7.3 pandas scikit-learn"),
}
WEEK = 7 * 24 * 3600
#: Of the generated table: qualities and products.
TOPICS = (
    (("dark", "roasted", "organic"), ("coffee beans", "espresso capsules", "cold brew", "ground coffee")),
    (("green", "herbal", "loose leaf"), ("tea bags", "tea tin", "infusion", "matcha powder")),
    (("salted", "crunchy", "barbecue"), ("potato chips", "pretzels", "tortilla chips", "popcorn")),
    (("fragrance free", "lavender", "aloe"), ("body lotion", "hand cream", "face cream", "body wash")),
    (("ultra", "stain removing", "fabric"), ("laundry detergent", "softener", "dryer sheets", "bleach")),
    (("newborn", "overnight", "gentle"), ("diapers", "baby wipes", "baby shampoo", "infant formula")),
)


@dataclass(frozen=True)
class Shop:
    """Tables as files, and whom and what the jobs ask for. All ids are text."""

    folder: Path  # for what the jobs write
    events: Path  # user, item, time; without the last week
    items: Path  # item, title, genres
    later: Path  # the events of the last week, of items that had some before
    new: Path  # two items that no event has: titled as the latest of `user`, and as the least like what `user` met
    user: str  # of `events`
    newcomer: str  # without events
    arrival: str  # of `later` alone
    history: list[str]  # of somebody who is no user, oldest first
    stock: list[str]  # half of the items
    candidates: list[str]  # eight that `user` has not met, and the two of `new`
    item: str  # met most
    epochs: int  # of training


def shop(folder: Path, events: pl.DataFrame, items: pl.DataFrame, epochs: int) -> Shop:
    """The files of a table of events (user, item, time in seconds) and of a catalogue (item, title, genres)."""
    folder.mkdir(parents=True, exist_ok=True)
    events = events.sort("time", "user", maintain_order=True)
    cut = events["time"].max() - WEEK
    before, later = events.filter(pl.col("time") <= cut), events.filter(pl.col("time") > cut)
    later = later.join(before, on="item", how="semi", maintain_order="left")
    histories = dict(before.group_by("user", maintain_order=True).agg("item").iter_rows())
    lengths = {name: len(set(own)) for name, own in histories.items()}
    user, other = [name for name, length in sorted(lengths.items()) if 10 <= length <= 20][:2]
    arrival = later.filter(~pl.col("user").is_in(list(histories)))["user"][0]
    words = dict(zip(items["item"], (set(row) for row in items["genres"].str.split(", ")), strict=True))
    liked = set().union(*(words[item] for item in histories[user]))
    rows = {row["item"]: row for row in items.iter_rows(named=True)}
    unlike = min(items["item"], key=lambda item: len(words[item] & liked))
    new = [rows[item] | {"item": name} for item, name in ((histories[user][-1], "new-1"), (unlike, "new-2"))]
    popular = before.group_by("item").len().sort("len", "item", descending=True)["item"].to_list()
    known = [item for item in popular if item not in histories[user]]
    tables = {"events": before, "items": items, "later": later, "new": pl.DataFrame(new, items.schema)}
    for name, table in tables.items():
        table.write_csv(folder / f"{name}.csv")
    return Shop(
        folder,
        **{name: folder / f"{name}.csv" for name in tables},
        user=user,
        newcomer="nobody",
        arrival=arrival,
        history=histories[other][-5:],
        stock=popular[::2],
        candidates=[*known[:8], "new-1", "new-2"],
        item=popular[0],
        epochs=epochs,
    )


def movietweetings() -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """Its events and films, None where it is not there."""
    folder = Path(os.environ.get("PAD_JAX_DATA", "data")) / "movietweetings"
    if not folder.exists():
        return None
    events = pl.read_parquet(folder / "events.parquet").select(
        pl.format("u{}", "user").alias("user"), pl.format("m{}", "item").alias("item"), "time"
    )
    genres = pl.col("genres").fill_null("").replace("", "other").str.replace_all(r" *, *", ", ")
    items = pl.read_parquet(folder / "items.parquet").select(pl.format("m{}", "item").alias("item"), "title", genres)
    return events, items


def generated(users: int = 600, items: int = 120) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Users of one topic each, who rarely buy anything else, in eight weeks; few items are met often, many hardly."""
    random = np.random.default_rng(20261126)
    of_item = np.arange(items) % len(TOPICS)
    weight = 1 / (1 + np.arange(items) // len(TOPICS)) ** 1.5
    events = []
    for user in range(users):
        liked = np.where(of_item == user % len(TOPICS), 1, 0.02) * weight
        met = random.choice(items, size=random.integers(2, 16), replace=False, p=liked / liked.sum())
        begin, end = random.uniform(0, 7.5), 8
        times = np.sort(random.uniform(begin, end, len(met))) * WEEK
        events += [(f"u{user}", f"m{item}", int(time)) for item, time in zip(met, times, strict=True)]
    rows = []
    for item, topic in enumerate(of_item):
        qualities, products = TOPICS[topic]
        product = products[item // len(TOPICS) % len(products)]
        rows.append((f"m{item}", f"{qualities[item % len(qualities)]} {product} {item}", product))
    return (
        pl.DataFrame(events, ["user", "item", "time"], orient="row"),
        pl.DataFrame(rows, ["item", "title", "genres"], orient="row"),
    )


def elsewhere(code: str) -> Any:
    """What `code`, run by a new Python process, leaves in the name `answer`."""
    code = textwrap.dedent(code) + "\nimport json\nprint(json.dumps(answer))"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | path
    )
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1:]
    return json.loads(done.stdout.splitlines()[-1])


def check(name: str, shop: Shop, answer: Any) -> None:
    """Raises AssertionError where a job's answer is not what was asked for."""
    events = pl.read_csv(shop.events)
    met = {user: set(items) for user, items in events.group_by("user").agg("item").iter_rows()}
    if name == "job_01_train":
        assert answer is not None, "no model"
    elif name == "job_02_lists":
        listed = pl.read_csv(answer).rename({"user_id": "user", "item_id": "item"}, strict=False)
        lists = dict(listed.group_by("user", maintain_order=True).agg("item").iter_rows())
        assert lists.keys() == met.keys() | {shop.newcomer}, "not one list for each user"
        for user, items in lists.items():
            ten_new(items, met.get(user, set()))
    elif name == "job_03_history":
        ten_new(answer, shop.history)
    elif name == "job_04_new_item":
        ten_new(answer, met[shop.user])
        assert set(answer) == set(shop.candidates), "not the candidates"
        assert answer.index("new-1") < answer.index("new-2"), "the title says nothing"
    elif name == "job_05_in_stock":
        ten_new(answer, met[shop.user])
        assert set(answer) <= set(shop.stock), "not in stock"
    elif name == "job_06_similar":
        ten_new(answer, [shop.item])
    elif name == "job_07_because":
        assert answer in met[shop.user], "no event of the user"
    elif name == "job_08_by_group":
        for scorer in ("model", "popularity"):
            assert all(0 <= answer[scorer][group] <= 1 for group in ("all", "warm", "median", "cold")), "no share"
        assert answer["popularity"]["warm"] > answer["popularity"]["cold"], "popularity knows cold items"
    elif name == "job_09_elsewhere":
        here, there = answer
        ten_new(there, shop.history)
        assert here == there, "another list than here"
    elif name == "job_10_next_week":
        ten_new(answer, pl.read_csv(shop.later).filter(user=shop.arrival)["item"])
    else:
        raise AssertionError(f"no assertion for {name}")


def ten_new(items: Any, met: Any) -> None:
    assert len(items) == len(set(items)) == 10, f"{len(set(items))} items"
    assert not set(items) & set(met), "the user has met them"


def jobs_of(library: str) -> dict[str, Callable[..., Any]]:
    """The jobs by name. Raises UserError where the library is not installed."""
    file, install = LIBRARIES[library]
    try:
        module = importlib.import_module(f"{__package__}.{Path(file).stem}")
    except ImportError as error:
        raise UserError(f"the jobs of {library} need {error.name or error}: {install}") from error
    return {name: getattr(module, name) for name in lines_of(library)}


def lines_of(library: str) -> dict[str, int]:
    """Lines of code of each function's body: not empty, no comment, no docstring. 0 where there is but a docstring.

    The files are formatted at 120 columns, without commas that would keep a call on more lines than it needs.
    """
    source = (HERE / LIBRARIES[library][0]).read_text()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            rows = enumerate(token.string.splitlines(), token.start[0])
            code |= {row for row, text in rows if text.strip()}
    found = {}
    for function in ast.parse(source).body:
        if isinstance(function, ast.FunctionDef):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            found[function.name] = len({row for part in body for row in range(part.lineno, part.end_lineno + 1)} & code)
    return found
