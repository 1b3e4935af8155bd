"""From Prime Pantry's files to arrays that training reads, beside the plain Python way.

The peer reads the same files with `csv` and `ast`, maps items to numbers in dictionaries, and pads every user's window
in a loop, as PyTorch datasets do. Ours is what happens when nothing was prepared before; it does its checks of every
line, frequency buckets and gaps for exact negatives on top. The windows of both must be equal.
"""

import ast
import csv
import statistics

import numpy as np
import torch

from benchmarks.harness import Report, arguments, in_turn, ratio, run
from benchmarks.problem import configuration
from pad_jax.batching.device import device_data
from pad_jax.data.files import find_files
from pad_jax.data.pantry import FOLDER, HISTORY, METADATA, SHA256, URL, read


def main() -> None:
    options = arguments(__doc__, rounds=3).parse_args()
    config = configuration()
    length, keep = config.data.length, config.data.keep
    files = find_files(config.data, FOLDER, URL, SHA256)

    def ours() -> np.ndarray:
        return device_data(read(config, files), config.data, None).windows

    def peer() -> torch.Tensor:
        with open(files[METADATA], newline="") as file:
            number = {row["asin"]: n for n, row in enumerate(csv.DictReader(file), 1)}
        windows = []
        with open(files[HISTORY], newline="") as file:
            for row in csv.DictReader(file):
                items = [number[item] for item in ast.literal_eval(row["history"])][-keep:][:-2][-(length + 1) :]
                windows.append([0] * (length + 1 - len(items)) + items)
        return torch.tensor(windows)

    if not np.array_equal(ours(), peer().numpy()):
        raise AssertionError("the windows of ours and the peer differ")
    columns = ("users", "ours_s", "peer_s", "ratio", "ratio_min", "ratio_max")
    with Report("prepare", columns) as report:
        seconds = in_turn({"ours": ours, "peer": peer}, options.rounds)
        medians = {f"{name}_s": statistics.median(s) for name, s in seconds.items()}
        report.add(users=len(ours()), **medians, **ratio(seconds["peer"], seconds["ours"]))


if __name__ == "__main__":
    run(main)
