"""Top-10 lists of 256 histories, beside the bare encoder and matrix product.

The bare version has the same inputs as item numbers on the device, encodes the users and multiplies with all items;
ours begins with lists of item ids and ends with ids, titles, scores and experts of the ten best. PAD with random
weights in the shape of recipe `best` over Prime Pantry's items.

--lists N asks for so many, 256 by 256, of all users over and over: users per second, the bare version timed at every
64th call, memory after the first hundredth and at the end. A single warm call is timed in either case.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from benchmarks.harness import Report, arguments, in_turn, ratio, run
from benchmarks.problem import configuration, pantry
from pad_jax.batching.layout import lay_out, pack
from pad_jax.data.dataset import Dataset
from pad_jax.models.scorer import Scorer
from pad_jax.serving import Artifact, Model
from pad_jax.serving.artifact import Text

_HISTORIES = 256


def model_of(scorer: Scorer, dataset: Dataset) -> Model:
    """A model over the dataset's items whose weights are random."""
    width, items = scorer.config.model.width, dataset.items
    random = np.random.default_rng(0)
    params = scorer.init(jax.random.key(0), items, width)
    vectors = {e: random.normal(size=(items + 1, width)).astype(np.float32) / width**0.5 for e in scorer.experts}
    gates = np.full((items + 1, len(scorer.experts)), 1 / len(scorer.experts), np.float32)
    return Model(Artifact(scorer, params, dataset.item_ids, dataset.titles, vectors, gates, Text()))


def main() -> None:
    parser = arguments(__doc__, rounds=20)
    parser.add_argument("--k", type=int, default=10, help="length of a list (default %(default)s)")
    parser.add_argument("--lists", type=int, default=0, metavar="N", help="how many; 0: the same 256 in every turn")
    options = parser.parse_args()
    config = configuration(recipe="best")
    dataset, length = pantry(config), config.data.length
    scorer = Scorer(config, ("id", "aligned", "text"), config.gate.kind)
    model = model_of(scorer, dataset)
    users = np.random.default_rng(0).choice(dataset.users, _HISTORIES, replace=False)
    parts = [dataset.events[dataset.starts[u] : dataset.starts[u + 1]] for u in users]
    histories = [[dataset.item_ids[i - 1] for i in part] for part in parts]
    inputs = np.zeros((_HISTORIES, length), np.int32)
    for row, part in enumerate(parts):
        latest = part[-length:]
        inputs[row, length - len(latest) :] = latest
    start, bins = pack((inputs > 0).sum(axis=1)[None], length)
    tokens = int(bins[0]) * length
    vectors = {e: jnp.asarray(x) for e, x in model.artifact.vectors.items()}
    items, counts = jnp.asarray(model.item_vectors()), jnp.asarray(model.artifact.counts)

    @jax.jit
    def bare(inputs, start):
        layout = lay_out(inputs > 0, start, tokens)
        ids = jnp.take(inputs.reshape(-1), layout.grid.cell, mode="fill", fill_value=0)
        users = scorer.users(model.artifact.params, {e: x[ids] for e, x in vectors.items()}, layout, counts[ids])
        return layout.last(scorer.joined(users)) @ items.T

    on_device = jnp.asarray(inputs), jnp.asarray(start[0])
    scores = np.array(bare(*on_device))
    found = model.recommend(histories, options.k)
    for row in range(_HISTORIES):
        scores[row, np.unique(parts[row]) - 1] = -np.inf
    best = np.take_along_axis(scores, np.argsort(-scores, axis=1)[:, : options.k], axis=1)
    if not np.allclose(best, found.scores, atol=1e-4):
        raise AssertionError("the lists are not those of the bare scores")
    contenders = {
        "lists": lambda: model.recommend(histories, options.k),
        "bare": lambda: jax.block_until_ready(bare(*on_device)),
    }
    single = [_seconds(model.recommend, [histories[row]], options.k) for row in range(_HISTORIES)]
    single_ms = 1000 * statistics.median(single[_HISTORIES // 2 :])
    if options.lists:
        columns = ("lists", "items", "k", "users_per_s", "bare_per_s", "ratio", "single_ms", "MiB_first", "MiB_end")
        with Report("serving", columns) as report:
            figures = {"items": dataset.items, "k": options.k, "single_ms": single_ms}
            report.add(**figures, **many(model, dataset, contenders["bare"], options))
        return
    columns = ("histories", "items", "k", "lists_ms", "bare_ms", "ratio", "ratio_min", "ratio_max", "single_ms")
    with Report("serving", columns) as report:
        seconds = in_turn(contenders, options.rounds)
        medians = {f"{name}_ms": 1000 * statistics.median(s) for name, s in seconds.items()}
        figures = {"histories": _HISTORIES, "items": dataset.items, "k": options.k, "single_ms": single_ms}
        report.add(**figures, **medians, **ratio(seconds["lists"], seconds["bare"]))


def many(model: Model, dataset: Dataset, bare: Callable[[], Any], options: Any) -> dict[str, Any]:
    """Figures of `options.lists` lists, `_HISTORIES` a call."""
    histories = [
        [dataset.item_ids[item - 1] for item in dataset.events[dataset.starts[user] : dataset.starts[user + 1]]]
        for user in range(dataset.users)
    ]
    order = np.random.default_rng(1).permutation(dataset.users)
    process, calls, memory = psutil.Process(), -(-options.lists // _HISTORIES), []
    ours, theirs = [], []
    for call in range(-16, calls):  # the first ones compile
        users = order.take(range(call * _HISTORIES, (call + 1) * _HISTORIES), mode="wrap")
        took = _seconds(model.recommend, [histories[user] for user in users], options.k)
        if call >= 0:
            ours.append(took)
        if call >= 0 and call % 64 == 0:
            theirs.append(_seconds(bare))
        if call in (calls // 100, calls - 1):
            memory.append(process.memory_info().rss / 2**20)
    figures = {"users_per_s": _HISTORIES * calls / sum(ours), "bare_per_s": _HISTORIES / statistics.median(theirs)}
    ratio = {"ratio": figures["bare_per_s"] / figures["users_per_s"]}
    return {"lists": _HISTORIES * calls, **figures, **ratio, "MiB_first": memory[0], "MiB_end": memory[-1]}


def _seconds(work: Callable[..., Any], *arguments: Any) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


if __name__ == "__main__":
    run(main)
