"""Memory that a training step of each phase of PAD needs on Prime Pantry at batch 128, beside the PyTorch peer.

`ours_mib` is what the compiled step needs, parameters, moments, data and temporaries, as XLA plans it: the figure that
training prints and checks before it starts. Eager PyTorch has no plan, so `peer_mib` is measured: its tensors, and the
growth of its process over a few steps, a few MiB of first uses included (on a GPU, the most its allocator has handed
out). The two are not quite the same quantity. `process_mib` is the most host memory our process holds, libraries and
compilation included.
"""

import json
from typing import Any

import torch

from benchmarks.harness import Report, arguments, in_own_process, peak_mib, run
from benchmarks.problem import CASES, Ours, Theirs, configuration, pantry, random_text
from pad_jax.training.memory import bytes_of


def main() -> None:
    parser = arguments(__doc__, rounds=4)
    parser.add_argument("--case", type=json.loads, help="one case, as this program calls itself")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(**options.case, rounds=options.rounds)))
        return
    columns = ("case", "ours_mib", "peer_mib", "ratio", "process_mib")
    with Report("memory", columns) as report:
        for name, (phase, width) in CASES.items():
            case = {"phase": phase, "width": width}
            ours = in_own_process("benchmarks.memory", case | {"peer": False}, options.rounds)
            peer = in_own_process("benchmarks.memory", case | {"peer": True}, options.rounds)
            ratio, process = peer["mib"] / ours["mib"], ours["process"]
            report.add(case=name, ours_mib=ours["mib"], peer_mib=peer["mib"], ratio=ratio, process_mib=process)


def measure(phase: str, width: int, peer: bool, rounds: int) -> dict[str, Any]:
    """MiB that a step needs, and the peak of this process."""
    config = configuration(train__steps_per_dispatch=4)
    dataset = pantry(config)
    ours = Ours(config, dataset, phase, random_text(dataset.items, width) if width else None)
    if not peer:
        needed = bytes_of(ours.run, ours.arguments())
        ours.steps()
        return {"mib": needed / 2**20, "process": peak_mib()}
    theirs = Theirs(ours)
    tensors = [*theirs.peer.p.values(), theirs.peer.text, theirs.peer.bucket, theirs.windows, theirs.gaps]
    held = sum(x.numel() * x.element_size() for x in tensors if x is not None) / 2**20
    before = peak_mib()
    theirs.steps(rounds)
    if theirs.device.type == "cuda":
        return {"mib": torch.cuda.max_memory_allocated() / 2**20}
    return {"mib": held + peak_mib() - before}


if __name__ == "__main__":
    run(main)
