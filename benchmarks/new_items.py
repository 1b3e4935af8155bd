"""Items that training never saw: how often they are found on the day they appear.

5 % of Prime Pantry's items are taken out of the events and of the catalogue, a method is trained on the rest as on
any own table (configs/table.py, recipe `best`), and the items come back as new ones, by their titles. Users whose
last event is such an item are asked for: their history before it, without new items, gives a list of 10 out of all
items. Beside it text_cosine, which needs no training either: cosine of the titles' vectors, item and last item of the
history.

The run is kept in `--workdir`; a killed one goes on.
"""

import csv
import sys
from pathlib import Path

import numpy as np

import pad_jax
from benchmarks.harness import Report, arguments, run
from benchmarks.problem import configuration, pantry
from pad_jax.evaluation.baselines import cosine_of
from pad_jax.run import main as command_line
from pad_jax.text.encode import encode
from pad_jax.text.settings import TextSettings

SHARE = 0.05


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--workdir", default="runs/new_items", help="(default %(default)s)")
    parser.add_argument("--method", default="staged", help="what is trained (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the held-out items and of training")
    parser.add_argument("settings", nargs="*", help="further --config.FIELD=VALUE of the training, after --")
    options = parser.parse_args()
    folder = Path(options.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    data = pantry(configuration())
    ids = np.array(["", *data.item_ids], object)
    random = np.random.default_rng(options.seed)
    new = np.zeros(data.items + 1, bool)
    new[1 + random.choice(data.items, round(SHARE * data.items), replace=False)] = True
    sequences = np.split(data.events, data.starts[1:-1])
    asked = [(part[:-1][~new[part[:-1]]], part[-1]) for part in sequences if new[part[-1]]]
    asked = [(history, target) for history, target in asked if len(history)]
    events = ((u, ids[i]) for u, part in zip(data.user_ids, sequences, strict=True) for i in part[~new[part]])
    write(folder / "events.csv", ("user", "item"), events)
    old = np.flatnonzero(~new)[1:]
    write(folder / "items.csv", ("item", "title"), ((ids[n], data.titles[n - 1]) for n in old))
    settings = {
        "dataset": "new_items",
        "method": options.method,
        "data.min_events": 3,
        "eval.serve": "last",
        "table.events": folder / "events.csv",
        "table.catalogue": folder / "items.csv",
        "table.time": "",
        "seed": options.seed,
    }
    workdir = folder / f"{options.method}-s{options.seed}"
    flags = [f"--config.{name}={value}" for name, value in settings.items()] + options.settings
    code = command_line(["main.py", "--config=configs/table.py:all", *flags, f"--workdir={workdir}"])
    if code:
        sys.exit(code)
    vectors, _ = encode(data.titles, TextSettings())
    numbers = np.flatnonzero(new)
    titles = [data.titles[n - 1] for n in numbers]
    model = pad_jax.load(workdir).with_items(ids[new].tolist(), titles, vectors[numbers - 1])
    found = model.recommend([ids[history].tolist() for history, _ in asked], k=10).items
    targets = ids[[target for _, target in asked]]
    cosine = cosine_of(np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors]))
    near = []
    for history, _ in asked:
        scores = cosine(history[-1:])[0].copy()
        scores[[0, *history]] = -np.inf
        near.append(ids[np.argsort(-scores, kind="stable")[:10]])
    columns = ("scorer", "targets", "new_items", "items", "hr10", "ndcg10", "new_share_of_lists")
    with Report("new_items", columns) as report:
        for name, lists in ((options.method, found), ("text_cosine", np.array(near))):
            hits = lists == targets[:, None]
            ndcg = (hits / np.log2(np.arange(2, 12))).sum(axis=1).mean()
            fresh = np.isin(lists.astype(str), ids[new].astype(str)).mean()
            counts = {"targets": len(asked), "new_items": int(new.sum()), "items": data.items}
            figures = {"hr10": 100 * hits.any(axis=1).mean(), "ndcg10": 100 * ndcg, "new_share_of_lists": 100 * fresh}
            report.add(scorer=name, **counts, **{k: float(v) for k, v in figures.items()})


def write(path: Path, header: tuple[str, ...], rows) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    run(main)
