"""Names that a test registers, or gives another meaning, for itself alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pad_jax.data.dataset import Dataset
from pad_jax.data.readers import READERS, Reader
from pad_jax.registry import REGISTRIES, Entry, Registry


@contextmanager
def restored() -> Iterator[None]:
    """Every registry, the sections of the configuration included, is afterwards what it was before."""
    before = {kind: dict(registry._entries) for kind, registry in REGISTRIES.items()}
    try:
        yield
    finally:
        for kind in [kind for kind in REGISTRIES if kind not in before]:
            del REGISTRIES[kind]
        for kind, entries in before.items():
            REGISTRIES[kind]._entries.clear()
            REGISTRIES[kind]._entries.update(entries)


def put(registry: Registry, name: str, value: Any) -> None:
    """`value` under a name that another file may have registered."""
    registry._entries[name] = Entry(value, __file__)


def as_demo(dataset: Dataset) -> None:
    """The dataset under the name `demo`."""
    put(READERS, "demo", Reader(lambda _: dataset, timed=False))
