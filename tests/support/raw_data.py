"""Writes small raw files in the forms that the readers take, quirks included."""

import csv
import gzip
import html
import json
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

WORDS = ("river", "senate", "coffee", "goal", 'the "old" town', "it's", "storm, again", "café", "price & value", "#1")


def titles(random, count):
    return [" ".join(random.choice(WORDS, 3)) + f" {n}" for n in range(count)]


def mind(folder: Path, seed: int = 0, users: int = 60, news: int = 40, parts=("train", "dev"), zipped: bool = False):
    """A release in `parts`: users in several impressions and parts, empty histories, news that both files name, clicks
    on news that no file has, quotes and a tab in titles, a test part without labels."""
    random = np.random.default_rng(seed)
    ids = [f"N{n}" for n in random.choice(10 * news, news, replace=False)]
    texts = titles(random, news)
    history = {u: list(random.choice(ids, random.integers(0, 7))) for u in range(users)}
    start = datetime(2019, 11, 9, 0, 5)
    for place, part in enumerate(parts):
        lines = []
        for number in range(3 * users):
            user = int(random.integers(users))
            time = start + timedelta(days=3 * place, seconds=int(random.integers(3 * 86400)))
            shown = [
                *random.choice(ids, random.integers(1, 6), replace=False),
                *(["N99999"] * (random.random() < 0.05)),
            ]
            labels = [f"{item}-{int(random.random() < 0.4)}" for item in shown]
            hour = time.strftime("%I").lstrip("0")
            stamp = f"{time.month}/{time.day}/{time.year} {hour}:{time:%M:%S %p}"
            lines.append("\t".join([str(number + 1), f"U{user}", stamp, " ".join(history[user]), " ".join(labels)]))
        known = [n for n in range(news) if (n + place) % 4]
        catalogue = [
            "\t".join([ids[n], "news", "world", texts[n], 'An abstract, "quoted".', "https://x", "[]", '[{"a": "b"}]'])
            for n in known
        ]
        catalogue.append("\t".join(["N77777", "news", "world", "a title\twith a tab", "", "https://x", "[]", "[]"]))
        files = {"behaviors.tsv": lines, "news.tsv": catalogue}
        folder.mkdir(parents=True, exist_ok=True)
        if zipped:
            with zipfile.ZipFile(folder / f"MINDsmall_{part}.zip", "w") as archive:
                for name, content in files.items():
                    archive.writestr(f"MINDsmall_{part}/{name}", "\n".join(content) + "\n")
        else:
            (folder / part).mkdir()
            for name, content in files.items():
                (folder / part / name).write_text("\n".join(content) + "\n")


def mind_by_hand(
    folder: Path, parts=("dev", "train"), before: datetime = datetime.max
) -> tuple[list[str], dict[str, list[str]]]:
    """News in file order, and each user's events `before` a time, by plain Python."""
    rows, news = [], {}
    for part in parts:
        for line in (folder / part / "behaviors.tsv").read_text().splitlines():
            _, user, time, history, shown = line.split("\t")
            rows.append((datetime.strptime(time, "%m/%d/%Y %I:%M:%S %p"), user, history.split(), shown.split()))
        for line in (folder / part / "news.tsv").read_text().splitlines():
            fields = line.split("\t")
            if len(fields) == 8:
                news.setdefault(fields[0], fields[3])
    rows.sort(key=lambda row: row[0])
    events: dict[str, list[str]] = {}
    for time, user, history, shown in rows:
        if time >= before:
            break
        events.setdefault(user, history[:])
        events[user] += [item[:-2] for item in shown if item.endswith("-1")]
    return list(news), {u: [i for i in items if i in news] for u, items in events.items()}


def amazon(folder: Path, histories: dict[str, list[str]], items: dict[str, str], reviews: bool = True, seed: int = 0):
    """Reviews (JSON lines, gzip) or ratings (CSV) in random order, whose events above 3 in time order are `histories`.

    Neighbouring events may share a time, and then stand in the file in their order. Low ratings, items without metadata
    and users with few events are mixed in.
    """
    random = np.random.default_rng(seed)
    rows, place = [], []
    for user, events in histories.items():
        time, where = (
            1_400_000_000 + np.cumsum(random.integers(0, 3, len(events))) * 86400,
            np.sort(random.random(len(events))),
        )
        rows += [(item, user, float(random.integers(4, 6)), int(t)) for item, t in zip(events, time, strict=True)]
        place += list(where)
    known, users = list(items), list(histories)
    for n in range(len(histories)):
        user, item = users[random.integers(len(users))], known[random.integers(len(known))]
        rows.append((item, user, float(random.integers(1, 4)), 1_400_000_000 + n))
        rows.append(("NOTITLE001", user, 5.0, 1_400_000_000 + n))
        rows.append((item, f"ZFEW{n % max(len(histories) // 3, 1)}", 5.0, 1_400_000_000 + n))
        place += list(random.random(3))
    rows = [rows[n] for n in np.argsort(place, kind="stable")]
    folder.mkdir(parents=True, exist_ok=True)
    if reviews:
        with gzip.open(folder / "Things_5.json.gz", "wt") as file:
            for item, user, rating, time in rows:
                review = {"overall": rating, "verified": True, "reviewerID": user, "asin": item, "unixReviewTime": time}
                file.write(json.dumps(review | {"reviewText": 'said "so"\n'}) + "\n")
    else:
        with open(folder / "Things.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows((i, u, r, t) for i, u, r, t in rows)
    with gzip.open(folder / "meta_Things.json.gz", "wt") as file:
        for item, title in items.items():
            file.write(json.dumps({"asin": item, "title": html.escape(title), "also_buy": ["x"]}) + "\n")
        file.write(json.dumps({"asin": known[0], "title": "the first again"}) + "\n")
        file.write(json.dumps({"asin": "NOTITLE001", "title": ""}) + "\n")
