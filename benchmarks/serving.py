"""Top-10 lists of 256 histories, beside the bare encoder and matrix product.

The bare version has the same inputs as item numbers on the device, encodes the users and multiplies with all items;
ours begins with lists of item ids and ends with ids, titles, scores and experts of the ten best. PAD with random
weights in the shape of recipe `best` over Prime Pantry's items.
"""

import statistics

import jax
import jax.numpy as jnp
import numpy as np

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
    items = jnp.asarray(model.item_vectors())

    @jax.jit
    def bare(inputs, start):
        layout = lay_out(inputs > 0, start, tokens)
        ids = jnp.take(inputs.reshape(-1), layout.grid.cell, mode="fill", fill_value=0)
        users = scorer.users(model.artifact.params, {e: x[ids] for e, x in vectors.items()}, layout)
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
    columns = ("histories", "items", "k", "lists_ms", "bare_ms", "ratio", "ratio_min", "ratio_max")
    with Report("serving", columns) as report:
        seconds = in_turn(contenders, options.rounds)
        medians = {f"{name}_ms": 1000 * statistics.median(s) for name, s in seconds.items()}
        figures = {"histories": _HISTORIES, "items": dataset.items, "k": options.k}
        report.add(**figures, **medians, **ratio(seconds["lists"], seconds["bare"]))


if __name__ == "__main__":
    run(main)
