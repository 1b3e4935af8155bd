"""What a result depends on beside its configuration: versions, and the machine."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from pad_jax import parallel
from pad_jax.version import VERSION


def machine() -> str:
    """Processor, cores and memory, and the accelerators."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    found = f"{name}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    kinds = parallel.accelerators()
    return ", ".join([found, *(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))])


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"pad_jax": VERSION, "python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
