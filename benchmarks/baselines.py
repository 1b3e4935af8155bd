"""How the weights of the baselines were chosen:  python -m benchmarks.baselines [--grid | --items N] [-- SETTING ..]

Prints HR@10 and nDCG@10 on both splits of Prime Pantry, in percent and by how often training met the target, and with
--grid nDCG@10 on validation for each of the 84 sums that were tried. The text table is that of
`python main.py --config=pantry:encode`, made if it is missing, or of settings as `--config.text.encoder=tfidf`; for
words alone nothing is whitened. With --items, generated data instead: CPU seconds of the
baselines on one split, from a few users, beside those of an epoch of SASRec (recipe best, or settings as
`--config.loss=sampled_softmax`).
"""

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pad_jax.cli import parse
from pad_jax.data.dataset import ItemLists, Split
from pad_jax.evaluation import baselines
from pad_jax.evaluation.metrics import ndcg
from pad_jax.evaluation.ranking import ranker
from pad_jax.pipeline import Run
from pad_jax.report import table

EXPONENTS, DECAYS, WEIGHTS = (0.5, 1.0), (0.4, 0.6, 0.8), (1, 2, 3, 4, 6, 8)
Sums = Mapping[str, Mapping[str, float]]


def main(grid: bool, settings: Sequence[str]) -> None:
    run = Run(parse(["main.py", "--config=pantry", *settings]).config, None, str)
    text = run.text.table
    assert text is not None
    ranks = baselines.baseline_ranks(run.dataset, run.splits, text.rows)
    for split in run.splits:
        print(f"\n{split}: HR@10 nDCG@10 of {', '.join(table.GROUPS)}")
        for name, found in ranks.items():
            print(f"{table.LABELS[name]:<28}  " + "  ".join(table.cells(found and run.metrics(found[split], split))))
    if not grid:
        return

    def judge(label: str, sums: Sums) -> None:
        baselines.BASELINES = sums
        found = baselines.baseline_ranks(run.dataset, {"valid": run.splits["valid"]}, text.rows)
        for name, of in found.items():
            assert of is not None
            print(f"{label}, {name}: {100 * ndcg(of['valid'], 10).mean():.3f}", flush=True)

    usual = baselines.EXPONENT, baselines.DECAY
    pairs = {f"counts + {w} whitened": {"counts": 1, "whitened": w} for w in WEIGHTS}
    for exponent, decay in itertools.product(EXPONENTS, DECAYS):
        baselines.EXPONENT, baselines.DECAY = exponent, decay
        alone: Sums = {"whitened": {"whitened": 1}, "words": {"words": 1}}
        judge(f"exponent {exponent}, decay {decay}", {**alone, **pairs})
    baselines.EXPONENT, baselines.DECAY = usual
    both = {(a, b): {"counts": 1, "whitened": a, "words": b} for a in WEIGHTS for b in WEIGHTS}
    judge("both", {f"counts + {a} whitened + {b} words": weights for (a, b), weights in both.items()})


def large(items: int, events: int, settings: Sequence[str], timed: int = 2048) -> None:
    """Titles of 8 words out of 50,000, the n-th of them with a probability like 1 / n; random vectors of width 384."""
    from benchmarks.problem import Ours, generated, random_text

    share = 1 / np.arange(1, 50_001)
    words = np.random.default_rng(0).choice(50_000, (items, 8), p=share / share.sum())
    dataset = replace(generated(events, items), own_texts=[" ".join(f"w{word}" for word in row) for row in words])
    flags = ("--config=pantry", "--config.recipe=best", "--config.train.steps_per_dispatch=1")
    config = parse(["main.py", *flags, *settings]).config
    whole = dataset.split("valid", config.data.length)

    def first(users: int) -> Split:
        history = ItemLists(whole.history.values, whole.history.starts[: users + 1])
        targets = ItemLists(whole.targets.values, whole.targets.starts[: users + 1])
        return Split(whole.user[:users], whole.inputs[:users], whole.target[:users], history, targets)

    def cpu(work) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    text = random_text(items, 384)
    fixed, few = (cpu(lambda n=n: baselines.baseline_ranks(dataset, {"valid": first(n)}, text)) for n in (1, 1 + timed))
    ours = Ours(config, dataset, "pretrain", None)
    rank = ranker(ours.scorer, config.eval.batch)
    ours.steps()
    step = cpu(ours.steps) / ours.blocks.steps * ours.blocks.epoch_steps
    a, b = first(timed), first(2 * timed)
    for part in (a, b):
        rank(ours.state.params, ours.data, part)
    ranking = (
        cpu(lambda: rank(ours.state.params, ours.data, b)) - cpu(lambda: rank(ours.state.params, ours.data, a))
    ) / timed
    users = len(whole.target)
    print(f"{items:,} items, {len(dataset.events):,} events, {users:,} users; CPU seconds:")
    print(f"baselines of a split: {fixed:.1f} + {users:,} x {1e3 * (few - fixed) / timed:.2f} ms")
    print(f"epoch of SASRec, loss {config.loss}: training {step:.0f}, ranking {users:,} x {1e3 * ranking:.2f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__.splitlines()[0])
    parser.add_argument("--grid", action="store_true", help="every weight that was tried, too")
    parser.add_argument("--items", type=int, help="of generated data")
    parser.add_argument("--events", type=int, default=3_000_000, help="likewise (default %(default)s)")
    parser.add_argument("settings", nargs="*", help="--config.FIELD=VALUE, after --")
    options = parser.parse_args()
    if options.items:
        large(options.items, options.events, options.settings)
    else:
        main(options.grid, options.settings)
