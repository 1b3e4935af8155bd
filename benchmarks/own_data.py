"""What keeping every event of an own table is worth: one setting at a time, beside ALS and item-kNN.

`movies` is a generated table with MovieLens' shape (943 users, 1,682 items, 20 to 700 events of a user); any other name
is a folder of $PAD_JAX_DATA with `events.parquet` and `items.parquet`. Every model is asked the same: the last event of
each user with five events or more, among all items that the user has not met, with all events before it known.

ALS and item-kNN (cosine, tf-idf, BM25) are those of `implicit` (pip install implicit): their settings are chosen on the
event before the last one of each user, and the chosen one learns from all events but the last. Runs are kept in
`--workdir`; a killed one goes on.
"""

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse

import pad_jax
from benchmarks.harness import Report, arguments, run
from pad_jax.errors import UserError
from pad_jax.run import main as command_line

LATENT, GENRES = 12, 18


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--data", default="movies", help="(default %(default)s)")
    parser.add_argument("--workdir", default="runs/own_data", help="(default %(default)s)")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--rivals", action="store_true", help="ALS and item-kNN, too")
    parser.add_argument("settings", nargs="*", help="further --config.FIELD=VALUE of the training, after --")
    options = parser.parse_args()
    folder = Path(options.workdir) / options.data
    folder.mkdir(parents=True, exist_ok=True)
    tables = folder
    if options.data == "movies":
        events, items = movies()
        events.write_parquet(folder / "events.parquet")
        items.write_parquet(folder / "items.parquet")
    else:
        tables = Path(os.environ.get("PAD_JAX_DATA", "data")) / options.data
    events = pl.read_parquet(tables / "events.parquet").with_columns(pl.col("user", "item").cast(pl.String))
    histories = events.sort("user", "time", maintain_order=True).group_by("user", maintain_order=True).agg("item")
    histories = [items for items in histories["item"].to_list() if len(items) >= 5]
    with Report("own_data", ("scorer", "users", "hr10", "ndcg10", "met_before")) as report:
        for name in options.rows:
            flags = {
                "dataset": options.data,
                "table.events": tables / "events.parquet",
                "table.catalogue": tables / "items.parquet",
                **ROWS[name],
            }
            workdir = folder / name
            argv = ["main.py", "--config=configs/table.py:all", *(f"--config.{n}={v}" for n, v in flags.items())]
            if code := command_line([*argv, *options.settings, f"--workdir={workdir}"]):
                sys.exit(code)
            model = pad_jax.load(workdir)
            keep = ROWS[name].get("data.keep", 0)
            report.add(scorer=name, **asked(model, histories), met_before=met_before(model, histories, keep))
        if options.rivals:
            for name, found in rivals(events, histories).items():
                report.add(scorer=name, **found)


#: What differs from the defaults of own tables; `before` is what they were in version 0.2.
BEFORE: dict[str, Any] = {"data.keep": 23, "data.length": 20, "data.windows": "latest", "data.whole": False}
ROWS: dict[str, dict[str, Any]] = {
    "sasrec, before": {"method": "sasrec", **BEFORE},
    "sasrec, all users": {"method": "sasrec", **BEFORE, "data.whole": True},
    "sasrec, all events": {"method": "sasrec", **BEFORE, "data.whole": True, "data.keep": 0},
    **{f"sasrec, length {n}": {"method": "sasrec", "data.windows": "latest", "data.length": n} for n in (50, 100, 200)},
    **{f"sasrec, length {n}, all windows": {"method": "sasrec", "data.length": n} for n in (20, 50, 100, 200)},
    "sasrec, now": {"method": "sasrec"},
    "pad, before": BEFORE,
    "pad, now": {},
}


def asked(model: Any, histories: list[list[str]]) -> dict[str, Any]:
    """HR@10 and nDCG@10 in percent of the last event of every history."""
    ranks = model.ranks([h[:-1] for h in histories], [h[-1] for h in histories])
    return figures(ranks)


def figures(ranks: np.ndarray) -> dict[str, Any]:
    hits = ranks <= 10
    ndcg = np.where(hits, 1 / np.log2(ranks + 1), 0)
    return {"users": len(ranks), "hr10": float(100 * hits.mean()), "ndcg10": float(100 * ndcg.mean())}


def met_before(model: Any, histories: list[list[str]], keep: int) -> float:
    """Percent of the items of lists of 10, made from the latest `keep` events (0: all), that the user has met."""
    found = model.recommend([h[-keep:] for h in histories], k=10).items
    met = sum(item in set(history) for row, history in zip(found, histories, strict=True) for item in row)
    return 100 * met / found.size


def rivals(events: pl.DataFrame, histories: list[list[str]]) -> dict[str, dict[str, Any]]:
    """ALS and item-kNN with the settings that are best on the event before the last one, asked for the last one."""
    try:
        from implicit.als import AlternatingLeastSquares
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
    except ImportError as error:
        raise UserError("the rivals need implicit: pip install implicit") from error
    number = {item: n for n, item in enumerate(events["item"].unique(maintain_order=True))}
    short = events.group_by("user").agg("item").filter(pl.col("item").list.len() < 5)["item"].to_list()
    als = itertools.product((16, 32, 64, 128), (0.001, 0.01, 0.1, 1.0), (0.3, 1.0, 3.0, 10.0))
    candidates: dict[str, dict[str, Callable[[], Any]]] = {
        "ALS": {
            f"factors {f}, regularization {r}, alpha {a}": lambda f=f, r=r, a=a: AlternatingLeastSquares(
                factors=f, regularization=r, alpha=a, iterations=20, random_state=0, num_threads=2
            )
            for f, r, a in als
        },
        "item-kNN": {
            f"{make.__name__} K {k}": lambda make=make, k=k: make(K=k, num_threads=2)
            for make in (CosineRecommender, TFIDFRecommender, BM25Recommender)
            for k in (20, 50, 100, 200, 500, 1000, 2000)
        },
    }

    def ranks(make: Callable[[], Any], back: int) -> np.ndarray:
        """Ranks of each history's event `back` places before its end, from all events before it."""
        known = [[number[i] for i in h[:-back]] for h in histories]
        others = [[number[i] for i in items] for items in short]  # learned from, not asked
        rows = np.repeat(np.arange(len(known) + len(others)), [len(h) for h in (*known, *others)])
        columns = np.concatenate([np.asarray(h) for h in (*known, *others)])
        seen = scipy.sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (rows, columns)), shape=(len(known) + len(others), len(number))
        )
        seen.data[:] = 1
        model = make()
        model.fit(seen, show_progress=False)
        target = np.array([number[h[-back]] for h in histories])
        found = np.zeros(len(known))
        for begin in range(0, len(known), 512):
            users = np.arange(begin, min(begin + 512, len(known)))
            if hasattr(model, "user_factors"):
                scores = np.asarray(model.user_factors[users] @ model.item_factors.T)
            else:
                scores = np.asarray((seen[users] @ model.similarity).todense())
            own = scores[np.arange(len(users)), target[users]][:, None].copy()
            met = np.asarray(seen[users].todense()) > 0
            again = met[np.arange(len(users)), target[users]]
            scores[met] = -np.inf
            place = 1 + (scores > own).sum(axis=1) + (((scores == own).sum(axis=1) - 1) / 2)
            found[users] = np.where(again, len(number), place)
        return found

    result = {}
    for name, made in candidates.items():
        judged = {how: figures(ranks(make, 2))["ndcg10"] for how, make in made.items()}
        best = max(judged, key=lambda how: judged[how])
        result[f"{name} ({best})"] = figures(ranks(made[best], 1))
    return result


def movies() -> tuple[pl.DataFrame, pl.DataFrame]:
    """943 users and 1,682 films: users have tastes that drift, and go on from the last film; films a genre or more."""
    random = np.random.default_rng(20261126)
    users, items = 943, 1682
    genre = random.random((items, GENRES)) < 0.12
    genre[np.arange(items), random.integers(GENRES, size=items)] = True
    mixed = random.normal(size=(GENRES, LATENT))
    place = genre @ mixed / np.sqrt(genre.sum(axis=1, keepdims=True)) + 0.5 * random.normal(size=(items, LATENT))
    liked = -0.9 * np.log1p(random.permutation(items))
    rows = []
    for user in range(users):
        taste, last = 0.6 * random.normal(size=LATENT), np.zeros(LATENT)
        count = int(np.clip(random.lognormal(4.2, 0.95), 20, 700))
        left = np.ones(items, bool)
        time = int(random.integers(1_500_000_000, 1_520_000_000))
        for _ in range(count):
            taste = 0.98 * taste + 0.12 * random.normal(size=LATENT)
            weight = np.where(left, np.exp(liked + place @ (taste + 0.3 * last)), 0)
            item = int(random.choice(items, p=weight / weight.sum()))
            left[item] = False
            last = place[item]
            time += int(random.exponential(3600))
            rows.append((f"u{user}", f"m{item}", time))
    names = [" ".join(f"genre{g}" for g in np.flatnonzero(row)) for row in genre]
    titles = [f"Film {n} ({1950 + n % 50})" for n in range(items)]
    catalogue = pl.DataFrame({"item": [f"m{n}" for n in range(items)], "title": titles, "genres": names})
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), catalogue


if __name__ == "__main__":
    run(main)
