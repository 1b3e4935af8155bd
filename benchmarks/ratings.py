"""Preparing a raw file of Amazon's size: 21 million ratings of 0.8 million items, on generated data.

Users and items are drawn from skewed distributions, so that about as many users as in Electronics have five events.
Files are written to a temporary folder first (1.2 GB of ratings, 2.6 GB of metadata with descriptions); the time and
the peak of memory are of a process of its own.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Report, arguments, in_own_process, peak_mib, run
from pad_jax.config import config_dict, resolve
from pad_jax.data import prepared, readers

_CHUNK = 1_000_000


def generate(folder: Path, ratings: int, users: int, items: int) -> None:
    """Electronics.csv and meta_Electronics.json."""
    random = np.random.default_rng(0)
    with open(folder / "Electronics.csv", "wb") as file:
        for begin in range(0, ratings, _CHUNK):
            count = min(_CHUNK, ratings - begin)
            user = (users * random.random(count) ** 2.5).astype(np.int64) * 7919 % users  # heavy users are anywhere
            item = (items * random.random(count) ** 3).astype(np.int64) * 7919 % items
            rating = random.choice(5, count, p=(0.12, 0.06, 0.08, 0.16, 0.58)) + 1.0
            columns = {
                "item": item,
                "user": user,
                "rating": rating,
                "time": random.integers(1_000_000_000, 1_538_000_000, count),
            }
            text = pl.col("item").cast(pl.String).str.zfill(9), pl.col("user").cast(pl.String).str.zfill(13)
            frame = pl.DataFrame(columns).with_columns(item=pl.lit("B") + text[0], user=pl.lit("A") + text[1])
            file.write(frame.write_csv(include_header=False).encode())
    words = np.array(["cable", "usb", "black", "charger", "case", "for", "wireless", "2-pack", "hd", "camera"])
    with open(folder / "meta_Electronics.json", "w") as file:
        for n in range(items):
            title = " ".join(words[random.integers(len(words), size=8)])
            file.write(json.dumps({"asin": f"B{n:09d}", "title": f"{title} {n}", "description": [title] * 60}) + "\n")


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    for name, count in (("ratings", 21_000_000), ("users", 9_800_000), ("items", 800_000)):
        parser.add_argument(f"--{name}", type=int, default=count, help="(default %(default)s)")
    parser.add_argument("--case", type=json.loads, help="prepare this folder and print figures (internal)")
    options = parser.parse_args()
    if options.case:
        prepare(Path(options.case["folder"]))
        return
    columns = ("ratings", "items_there", "users", "items", "events", "prepare_s", "again_s", "peak_mib")
    with Report("ratings", columns) as report, tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), options.ratings, options.users, options.items)
        for _ in range(options.rounds):
            figures = in_own_process("benchmarks.ratings", {"folder": folder}, 1)
            report.add(ratings=options.ratings, items_there=options.items, **figures)


def prepare(folder: Path) -> None:
    """Reads the files, and then what was kept of them."""
    values = config_dict("electronics")
    values.data.path = str(folder)
    config = resolve(values)
    prepared.ROOT = folder / "runs"
    seconds, peaks = [], []
    for _ in range(2):
        started = time.perf_counter()
        dataset = readers.load(config)
        seconds.append(time.perf_counter() - started)
        peaks.append(peak_mib())
    counts = {"users": dataset.users, "items": dataset.items, "events": len(dataset.events)}
    print(json.dumps(counts | {"prepare_s": seconds[0], "again_s": seconds[1], "peak_mib": peaks[0]}))


if __name__ == "__main__":
    run(main)
