"""Ranks of 12,871 users' targets among 8,347 items from given user and item vectors (D 128), history masked.

Beside counting here stand two peers in PyTorch: one batched matrix product with a comparison, and a sort of the scores
of each user, as released recommenders do. With --whole, the encoder and the towers of PAD's third phase as well.
"""

import statistics
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.harness import Report, arguments, in_turn, ratio, run
from benchmarks.peer import mask_history, ranks_by_comparison
from benchmarks.problem import Ours, Theirs, configuration, pantry, random_text
from pad_jax.blocks import rows_that_fit
from pad_jax.evaluation.ranking import ranker, ranks_of


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--users", type=int, default=12871)
    parser.add_argument("--items", type=int, default=8347)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=256, help="users at once (default %(default)s)")
    parser.add_argument("--whole", action="store_true", help="the whole evaluation of phase 3 on Prime Pantry too")
    options = parser.parse_args()
    columns = ("case", "ours_s", "peer_s", "ratio", "ratio_min", "ratio_max", "users_per_s")
    with Report("ranking", columns) as report:
        problem = Vectors(options.users, options.items, options.width, options.batch)
        ours, compared, sorted_ = problem.ours(), problem.compared(), problem.sorted()
        for name, ranks in (("comparison", compared), ("sorting", sorted_)):
            if not np.mean(np.abs(ours - ranks) <= 1) > 0.999:  # sums round differently: a near tie may swap
                raise AssertionError(f"ranks by {name} are not ours")
        seconds = in_turn(
            {"ours": problem.ours, "compared": problem.compared, "sorted": problem.sorted}, options.rounds
        )
        for peer in ("compared", "sorted"):
            report.add(case=f"ranks, {peer}", **_line(seconds["ours"], seconds[peer], options.users))
        if options.whole:
            evaluation(report, options.rounds)


def _line(ours: list[float], peer: list[float], users: int) -> dict[str, float]:
    median = statistics.median(ours)
    return {"ours_s": median, "peer_s": statistics.median(peer), **ratio(peer, ours), "users_per_s": users / median}


class Vectors:
    """Random user and item vectors, targets, and histories of up to 20 other items."""

    def __init__(self, users: int, items: int, width: int, batch: int):
        random = np.random.default_rng(0)
        self.batch, self.device = batch, torch.device("cuda" if torch.cuda.is_available() else "cpu")
        user = random.standard_normal((users, width), np.float32)
        item = random.standard_normal((items + 1, width), np.float32)
        target = random.integers(1, items + 1, users)
        history = random.integers(1, items + 1, (users, 20))
        history.sort(axis=1)
        again = np.concatenate([np.zeros((users, 1), bool), history[:, 1:] == history[:, :-1]], axis=1)
        history[again | (history == target[:, None]) | (random.random((users, 20)) < 0.6)] = 0
        self.jax = [jnp.asarray(x) for x in (user, item, target.astype(np.int32), history.astype(np.int32))]
        self.torch = [torch.from_numpy(x).to(self.device) for x in (user, item, target, history)]
        self.ranks = jax.jit(partial(ranks_of, rows=rows_that_fit(items + 1)))

    def ours(self) -> np.ndarray:
        user, item, target, history = self.jax
        parts = [slice(b, b + self.batch) for b in range(0, len(user), self.batch)]
        return np.concatenate(
            [np.asarray(x) for x in [self.ranks(user[p], item, target[p], history[p]) for p in parts]]
        )

    def compared(self) -> np.ndarray:
        user, item, target, history = self.torch
        ranks = []
        for begin in range(0, len(user), self.batch):
            part = slice(begin, begin + self.batch)
            ranks.append(ranks_by_comparison(user[part] @ item.T, target[part], history[part]))
        return torch.cat(ranks).cpu().numpy()

    def sorted(self) -> np.ndarray:
        user, item, target, history = self.torch
        ranks = []
        for begin in range(0, len(user), self.batch):
            part = slice(begin, begin + self.batch)
            scores = mask_history(user[part] @ item.T, history[part])
            for row, wanted in zip(scores, target[part], strict=True):
                ranks.append((row.argsort(descending=True) == wanted).nonzero()[0, 0] + 1)
        return torch.stack(ranks).cpu().numpy()


def evaluation(report: Report, rounds: int) -> None:
    """Catalogue, encoder and ranks of phase 3 on Prime Pantry."""
    config = configuration()
    dataset = pantry(config)
    ours = Ours(config, dataset, "finetune", random_text(dataset.items, 384))
    theirs = Theirs(ours)
    theirs.peer.train = False
    split = dataset.split("test", config.data.length)
    rank, params = ranker(ours.scorer, config.eval.batch), ours.state.params
    inputs, target, history = (theirs.tensor(x).long() for x in (split.inputs, split.target, split.history))

    def peer() -> np.ndarray:
        gated, vectors = theirs.peer.catalogue()
        ranks = []
        for begin in range(0, len(inputs), config.eval.batch):
            part = slice(begin, begin + config.eval.batch)
            scores = theirs.peer.states(inputs[part], vectors) @ gated.T
            ranks.append(ranks_by_comparison(scores, target[part], history[part]))
        return torch.cat(ranks).cpu().numpy()

    one, other = rank(params, ours.data, split), peer()
    met = (split.history == split.target[:, None]).any(axis=1)  # ours counts a target that was met before as a miss
    if not np.mean(np.abs(one - other)[~met] <= 1) > 0.999:
        raise AssertionError("the ranks of ours and the peer differ")
    seconds = in_turn({"ours": lambda: rank(params, ours.data, split), "peer": peer}, rounds)
    report.add(case="evaluation, phase 3", **_line(seconds["ours"], seconds["peer"], dataset.users))


if __name__ == "__main__":
    run(main)
