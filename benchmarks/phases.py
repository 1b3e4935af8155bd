"""Milliseconds per step of the three phases of PAD, and users per second, beside the PyTorch peer.

Prime Pantry, recipe `paper` (SASRec of 5 pre-norm blocks, D 128, L 20, BCE), forward, backward and AdamW, dropout and
drawing of negatives included. The text tables are random: a step costs the same with any values.
"""

import statistics
from functools import partial

from benchmarks.harness import Report, arguments, in_turn, ratio, run
from benchmarks.problem import CASES, Ours, Theirs, configuration, pantry, parity, random_text


def main() -> None:
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--batch", type=int, default=128, help="users per step (default %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps per turn (default %(default)s)")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    config = configuration(train__batch=options.batch, train__steps_per_dispatch=options.steps)
    dataset = pantry(config)
    columns = ("case", "ours_ms", "peer_ms", "ratio", "ratio_min", "ratio_max", "users_per_s")
    with Report("phases", columns) as report:
        for case in options.cases:
            phase, width = CASES[case]
            ours = Ours(config, dataset, phase, random_text(dataset.items, width) if width else None)
            theirs = Theirs(ours)
            same = parity(ours, theirs)
            steps = ours.blocks.steps
            seconds = in_turn({"ours": ours.steps, "peer": partial(theirs.steps, steps)}, options.rounds)
            median = {name: statistics.median(values) / steps for name, values in seconds.items()}
            report.add(
                case=case,
                batch=options.batch,
                ours_ms=1e3 * median["ours"],
                peer_ms=1e3 * median["peer"],
                **ratio(seconds["peer"], seconds["ours"]),
                users_per_s=options.batch / median["ours"],
                **same,
            )


if __name__ == "__main__":
    run(main)
