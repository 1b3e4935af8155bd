"""What checksums cost:  python -m benchmarks.seals [FLAGS of main.py]

Trains in a new temporary workdir as `python main.py FLAGS` does, and says how many of its seconds went into checksums;
then reads 100 MiB of tensors with and without them, the least of five times.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from pad_jax import sealed
from pad_jax.run import main as train
from pad_jax.training import checkpoint


class Clock:
    """Seconds spent in some functions, those within each other once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            self._depth += 1
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - started

        return timed


def least(function: Callable[[], Any]) -> float:
    """Of five times, in seconds."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def main(flags: list[str]) -> int:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "tensors")
        path.write_bytes(sealed.tensors({"x": np.random.default_rng(0).random(100 << 17)}, {"format": sealed.FORMAT}))
        with_seal = least(lambda: sealed.read_tensors(path, sealed.FORMAT, ""))
        without = least(lambda: load(path.read_bytes()))
        clock = Clock()
        sealed.digest, sealed.digest_of_arrays = clock(sealed.digest), clock(sealed.digest_of_arrays)
        checkpoint._digest = clock(checkpoint._digest)
        started = time.perf_counter()
        code = train(["main.py", *flags, f"--workdir={place}/run"])
        total = time.perf_counter() - started
    print(f"training: {clock.seconds:.2f} of {total:.1f} s in checksums, {100 * clock.seconds / total:.2f} %")
    print(f"reading 100 MiB: {with_seal:.2f} s, without checksums {without:.2f} s")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
