"""PAD: pre-train, align and disentangle sequential recommenders with language-model text embeddings.

Dimension letters, everywhere: B users of a batch, U users, L history length, T tokens (positions without padding),
W = L + 1 and V window slots and events (inputs and the last target), N items (1..N), I = N + 1 rows of an item table
(row 0 is padding), D model width, E text width, K experts, F = K * D, R rows of anything.
"""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import psutil

__version__ = "0.1.0"


def load(workdir: str | Path) -> Any:
    """The trained model of a workdir, a `pad_jax.serving.Recommender`: top-k lists, vectors, new items.

    Raises `pad_jax.errors.UserError` where the workdir holds none.
    """
    from pad_jax import serving  # slow to import

    return serving.load(workdir)


def machine() -> str:
    """Processor, cores and memory, and the accelerators."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    found = f"{name}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    kinds = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    return ", ".join([found, *(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))])


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"pad_jax": __version__, "python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
