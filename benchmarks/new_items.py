"""Items that training never saw: how often they are found on the day they appear.

5 % of Prime Pantry's items are taken out of the events and of the catalogue, a method is trained on the rest as on
any own table (configs/table.py, recipe `best`), and the items come back as new ones, by their titles. Users whose
last event is such an item are asked for: their history before it, without new items, gives a list of 10 out of all
items. Beside it the baselines that need no training (pad_jax/evaluation/baselines.py), which know the new titles as
they know the others, and nDCG@10 of the method minus that of the best of them, with a 95 % bootstrap interval.

`--weights` multiplies the scores of new items and shows what it does to all users, by the events before the last
(`valid`) and the last (`test`): what new items gain, and what users of others lose.

The run is kept in `--workdir`; a killed one goes on.
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import pad_jax
from benchmarks.harness import Report, arguments, run
from benchmarks.problem import configuration, pantry
from pad_jax.data.dataset import Cuts, Dataset
from pad_jax.evaluation.baselines import BASELINES, scores_of, sum_of
from pad_jax.evaluation.significance import effect
from pad_jax.run import main as command_line
from pad_jax.text.encode import encode
from pad_jax.text.settings import TextSettings

SHARE = 0.05


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--workdir", default="runs/new_items", help="(default %(default)s)")
    parser.add_argument("--method", default="blend", help="what is trained (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the held-out items and of training")
    parser.add_argument(
        "--weights", type=float, nargs="+", default=[], metavar="W", help="of new items (default: none)"
    )
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
    unlearned = lists_of_baselines(without(data, new), vectors, [history for history, _ in asked])
    columns = ("scorer", "targets", "new_items", "items", "hr10", "ndcg10", "new_share_of_lists", "ndcg10_minus_best")
    gains = {}
    with Report("new_items", columns) as report:
        for name, lists in {**{n: ids[numbers] for n, numbers in unlearned.items()}, options.method: found}.items():
            hits = lists == targets[:, None]
            gains[name] = (hits / np.log2(np.arange(2, 12))).sum(axis=1)
            fresh = np.isin(lists.astype(str), ids[new].astype(str)).mean()
            counts = {"targets": len(asked), "new_items": int(new.sum()), "items": data.items}
            figures = {"hr10": hits.any(axis=1).mean(), "ndcg10": gains[name].mean(), "new_share_of_lists": fresh}
            figures = {k: 100 * float(v) for k, v in figures.items()}
            if name == options.method:
                best = max(unlearned, key=lambda name: gains[name].mean())
                minus = effect((gains[name] - gains[best])[None])
                interval = f"{100 * minus.mean:+.2f} [{100 * minus.low:+.2f}, {100 * minus.high:+.2f}], {best}"
                figures |= {"ndcg10_minus_best": interval}
            report.add(scorer=name, **counts, **figures)
    if options.weights:
        weigh(model, options.weights, sequences, new, ids)


def weigh(model: pad_jax.Model, weights: list[float], sequences: list[np.ndarray], new: np.ndarray, ids: np.ndarray):
    """nDCG@10 of the users of new and of known items, with other weights of the new ones."""
    columns = ("split", "weight", "users", "ndcg10", "ndcg10_of_new", "ndcg10_of_known", "new_share_of_lists")
    own = model.artifact.scorer.of_new
    with Report("new_items_weights", columns) as report:
        for split, place in (("valid", -2), ("test", -1)):
            asked = [(part[:place][~new[part[:place]]], part[place]) for part in sequences]
            asked = [(ids[history].tolist(), target) for history, target in asked if len(history)]
            target = np.array([target for _, target in asked])
            for weight in weights:
                gates = model.artifact.gates.copy()
                gates[-int(new.sum()) :] *= weight / own
                other = pad_jax.Model(replace(model.artifact, gates=gates))
                lists = other.recommend([history for history, _ in asked], k=10).items
                gain = 100 * ((lists == ids[target][:, None]) / np.log2(np.arange(2, 12))).sum(axis=1)
                report.add(
                    split=split,
                    weight=weight,
                    users=len(asked),
                    ndcg10=float(gain.mean()),
                    ndcg10_of_new=float(gain[new[target]].mean()),
                    ndcg10_of_known=float(gain[~new[target]].mean()),
                    new_share_of_lists=100 * float(np.isin(lists.astype(str), ids[new].astype(str)).mean()),
                )


def without(data: Dataset, new: np.ndarray) -> Dataset:
    """The whole catalogue and the events of known items alone, those before a user's last two in training."""
    parts = [part[~new[part]] for part in np.split(data.events, data.starts[1:-1])]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    sizes, nobody = np.diff(starts), np.full(data.users, -1, np.int64)
    cuts = Cuts(starts[:-1], starts[1:] - np.where(sizes >= 3, 2, 0), nobody, nobody)
    return replace(data, events=np.concatenate(parts), starts=starts, cuts=cuts, holdout=False)


def lists_of_baselines(data: Dataset, vectors: np.ndarray, histories: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The numbers of the ten best items for each history, by baseline."""
    length = 20
    inputs = np.zeros((len(histories), length), np.int32)
    for row, history in enumerate(histories):
        latest = history[-length:]
        inputs[row, length - len(latest) :] = latest
    made = {name: score(inputs) for name, score in scores_of(data, np.pad(vectors, ((1, 0), (0, 0)))).items()}
    found = {}
    for name, weights in BASELINES.items():
        lists = []
        for row, history in enumerate(histories):
            scores = sum_of(np.float32(weight) * made[part](row) for part, weight in weights.items())
            scores[[0, *history]] = -np.inf
            lists.append(np.argsort(-scores, kind="stable")[:10])
        found[name] = np.array(lists)
    return found


def write(path: Path, header: tuple[str, ...], rows) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    run(main)
