"""Items that training never saw: how often they are found on the day they appear.

5 % of Prime Pantry's items are taken out of the events and of the catalogue, a method is trained on the rest as on
any own table (configs/table.py, recipe `best`), and the items come back as new ones, by their titles. Users whose
last event is such an item are asked for: their history before it, without new items, gives a list of 10 out of all
items. Beside it the baselines that need no training (pad_jax/evaluation/baselines.py), which know the new titles as
they know the others, and nDCG@10 of the method minus that of the best of them, with a 95 % bootstrap interval
over users. `--seeds` does so with several draws of items, a training each, and counts all their users.

`--weights` multiplies the scores of new items and shows what it does to all users, by the events before the last
(`valid`) and the last (`test`): what new items gain, and what users of others lose.

The run is kept in `--workdir`; a killed one goes on.
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

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


class Trial(NamedTuple):
    """A model that was trained without the `new` items [N + 1], and knows them since."""

    model: pad_jax.Model
    new: np.ndarray


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--workdir", default="runs/new_items", help="(default %(default)s)")
    parser.add_argument("--method", default="blend", help="what is trained (default %(default)s)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], metavar="S", help="each of a draw of new items and of a training"
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", default=[], metavar="W", help="of new items (default: none)"
    )
    parser.add_argument("settings", nargs="*", help="further --config.FIELD=VALUE of the training, after --")
    options = parser.parse_args()
    data = pantry(configuration())
    vectors, _ = encode(data.titles, TextSettings())
    trials = [
        trained(data, vectors, Path(options.workdir) / f"s{seed}", options.method, seed, options.settings)
        for seed in options.seeds
    ]
    compare(data, vectors, trials, options.method)
    if options.weights:
        weigh(data, trials, options.weights)


def trained(data: Dataset, vectors: np.ndarray, folder: Path, method: str, seed: int, settings: list[str]) -> Trial:
    """A method trained on the events and the catalogue without a draw of items, which are then added to it."""
    folder.mkdir(parents=True, exist_ok=True)
    ids, sequences = names(data), np.split(data.events, data.starts[1:-1])
    random = np.random.default_rng(seed)
    new = np.zeros(data.items + 1, bool)
    new[1 + random.choice(data.items, round(SHARE * data.items), replace=False)] = True
    events = ((u, ids[i]) for u, part in zip(data.user_ids, sequences, strict=True) for i in part[~new[part]])
    write(folder / "events.csv", ("user", "item"), events)
    old = np.flatnonzero(~new)[1:]
    write(folder / "items.csv", ("item", "title"), ((ids[n], data.titles[n - 1]) for n in old))
    fields = {
        "dataset": "new_items",
        "method": method,
        "data.min_events": 3,
        "eval.serve": "last",
        "table.events": folder / "events.csv",
        "table.catalogue": folder / "items.csv",
        "table.time": "",
        "seed": seed,
    }
    workdir = folder / method
    flags = [f"--config.{name}={value}" for name, value in fields.items()] + settings
    code = command_line(["main.py", "--config=configs/table.py:all", *flags, f"--workdir={workdir}"])
    if code:
        sys.exit(code)
    numbers = np.flatnonzero(new)
    titles = [data.titles[n - 1] for n in numbers]
    return Trial(pad_jax.load(workdir).with_items(ids[new].tolist(), titles, vectors[numbers - 1]), new)


def compare(data: Dataset, vectors: np.ndarray, trials: list[Trial], method: str) -> None:
    """Ten items for every user whose last one is new, by the method and by the baselines, over all trials."""
    ids, hits, fresh = names(data), dict[str, list[np.ndarray]](), dict[str, list[np.ndarray]]()
    for model, new in trials:
        asked = [(known, target) for known, target in histories(data, new, -1) if new[target]]
        lists = {
            name: ids[numbers]
            for name, numbers in lists_of_baselines(without(data, new), vectors, [known for known, _ in asked]).items()
        }
        lists[method] = model.recommend([ids[known].tolist() for known, _ in asked], k=10).items
        for name, found in lists.items():
            hits.setdefault(name, []).append(found == ids[[target for _, target in asked]][:, None])
            fresh.setdefault(name, []).append(np.isin(found.astype(str), ids[new].astype(str)))
    gains = {name: ndcg(np.concatenate(found)) for name, found in hits.items()}
    best = max((name for name in gains if name != method), key=lambda name: gains[name].mean())
    minus = effect((gains[method] - gains[best])[None])
    interval = f"{100 * minus.mean:+.2f} [{100 * minus.low:+.2f}, {100 * minus.high:+.2f}], {best}"
    columns = ("scorer", "targets", "new_items", "items", "hr10", "ndcg10", "new_share_of_lists", "ndcg10_minus_best")
    with Report("new_items", columns) as report:
        for name, gain in gains.items():
            report.add(
                scorer=name,
                targets=len(gain),
                new_items=sum(int(new.sum()) for _, new in trials),
                items=data.items,
                hr10=100 * float(np.concatenate(hits[name]).any(axis=1).mean()),
                ndcg10=100 * float(gain.mean()),
                new_share_of_lists=100 * float(np.concatenate(fresh[name]).mean()),
                ndcg10_minus_best=interval if name == method else None,
            )


def weigh(data: Dataset, trials: list[Trial], weights: list[float]) -> None:
    """nDCG@10 of the users of new and of known items, with other weights of the new ones, over all trials."""
    columns = ("split", "weight", "users", "ndcg10", "ndcg10_of_new", "ndcg10_of_known", "new_share_of_lists")
    ids = names(data)
    with Report("new_items_weights", columns) as report:
        for split, place in (("valid", -2), ("test", -1)):
            asked = [histories(data, new, place) for _, new in trials]
            known = [[ids[history].tolist() for history, _ in users] for users in asked]
            targets = [np.array([target for _, target in users]) for users in asked]
            is_new = np.concatenate([new[target] for (_, new), target in zip(trials, targets, strict=True)])
            for weight in weights:
                gains, fresh = [], []
                for (model, new), users, target in zip(trials, known, targets, strict=True):
                    gates = model.artifact.gates.copy()
                    gates[-int(new.sum()) :] *= weight / model.artifact.scorer.of_new
                    other = pad_jax.Model(replace(model.artifact, gates=gates))
                    lists = other.recommend(users, k=10).items
                    gains.append(ndcg(lists == ids[target][:, None]))
                    fresh.append(np.isin(lists.astype(str), ids[new].astype(str)))
                gain = 100 * np.concatenate(gains)
                report.add(
                    split=split,
                    weight=weight,
                    users=len(gain),
                    ndcg10=float(gain.mean()),
                    ndcg10_of_new=float(gain[is_new].mean()),
                    ndcg10_of_known=float(gain[~is_new].mean()),
                    new_share_of_lists=100 * float(np.concatenate(fresh).mean()),
                )


def names(data: Dataset) -> np.ndarray:
    """The name of every item number; that of padding is empty."""
    return np.array(["", *data.item_ids], object)


def histories(data: Dataset, new: np.ndarray, place: int) -> list[tuple[np.ndarray, int]]:
    """The known items that each user met before the event at `place` of his own, and that event's item."""
    sequences = np.split(data.events, data.starts[1:-1])
    asked = [(part[:place][~new[part[:place]]], int(part[place])) for part in sequences]
    return [(known, target) for known, target in asked if len(known)]


def ndcg(hits: np.ndarray) -> np.ndarray:
    """nDCG@10 of lists [n, 10], by where each has its target."""
    return (hits / np.log2(np.arange(2, 12))).sum(axis=1)


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
