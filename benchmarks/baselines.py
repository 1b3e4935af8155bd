"""How the weights of the baselines were chosen:  python -m benchmarks.baselines [--grid]

Prints HR@10 and nDCG@10 on both splits of Prime Pantry, in percent and by how often training met the target, and with
--grid nDCG@10 on validation for each of the 84 sums that were tried. The text table is that of
`python main.py --config=pantry:encode`, made if it is missing.
"""

import argparse
import itertools
from collections.abc import Mapping

from pad_jax.cli import parse
from pad_jax.evaluation import baselines
from pad_jax.evaluation.metrics import ndcg
from pad_jax.pipeline import Run
from pad_jax.report import table

EXPONENTS, DECAYS, WEIGHTS = (0.5, 1.0), (0.4, 0.6, 0.8), (1, 2, 3, 4, 6, 8)
Sums = Mapping[str, Mapping[str, float]]


def main(grid: bool) -> None:
    run = Run(parse(["main.py", "--config=pantry"]).config, None, str)
    text = run.text.table
    assert text is not None
    ranks = baselines.baseline_ranks(run.dataset, run.splits, text.rows)
    for split in run.splits:
        print(f"\n{split}: HR@10 nDCG@10 of {', '.join(table.GROUPS)}")
        for name, found in ranks.items():
            assert found is not None
            print(f"{table.LABELS[name]:<28}  " + "  ".join(table.cells(run.metrics(found[split], split))))
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__.splitlines()[0])
    parser.add_argument("--grid", action="store_true", help="every weight that was tried, too")
    main(parser.parse_args().grid)
