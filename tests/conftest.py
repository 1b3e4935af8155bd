"""Four fake devices, full shape checks, and small data that everything is tested on."""

import os
from importlib.metadata import version

if "device_count" not in os.environ.get("XLA_FLAGS", ""):
    # All but the first make compiling faster and programs slower: tests compile much and compute little.
    flags = [
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
    if version("jax").startswith("0.10."):  # newer ones do not know it, and end the process
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("pad_jax", "beartype.beartype")

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.config import Config, config_dict, resolve
from pad_jax.data.dataset import Dataset, from_sequences
from pad_jax.models.layout import Layout, lay_out, pack
from pad_jax.text.table import TableWriter

jax.config.update("jax_numpy_rank_promotion", "raise")
ROOT = Path(__file__).parent.parent


def pytest_configure(config):
    del config
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pad_jax" / "xla-tests"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


#: A model small enough for tests.
SMALL = {
    "model.width": 16,
    "model.blocks": 1,
    "data.length": 8,
    "mmd.group": 4,
    "train.batch": 16,
    "train.steps_per_dispatch": 3,
    "train.sampled": 12,
    "eval.batch": 8,
}


def set_fields(config, fields):
    """Sets dotted names of a ConfigDict."""
    for name, value in fields.items():
        *parents, last = name.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value


@pytest.fixture
def make_config():
    """A small Config; overrides are dotted names, with __ for the dot where Python wants a name."""

    def make(recipe: str = "paper", **overrides) -> Config:
        fields = SMALL | {"recipe": recipe} | {name.replace("__", "."): value for name, value in overrides.items()}
        config = config_dict("demo", "all")
        set_fields(config, fields)
        return resolve(config, fields)

    return make


def laid_out(mask, first_row: int = 0, spare: int = 0) -> Layout:
    """The layout of a left-padded grid, packed, with `spare` bins more than it takes."""
    start, bins = pack(np.asarray(mask).sum(axis=1)[None], mask.shape[1])
    tokens = (int(bins[0]) + spare) * mask.shape[1]
    return lay_out(jnp.asarray(mask), jnp.asarray(start[0]), tokens, first_row)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return tiny_dataset()


def tiny_dataset(users: int = 37) -> Dataset:
    """30 items, and a number of users that no batch and no device count divides."""
    random = np.random.default_rng(0)
    sequences = [random.integers(1, 31, size=random.integers(5, 13)) for _ in range(users)]
    names = [f"u{u}" for u in range(users)]
    return from_sequences("tiny", [f"i{i}" for i in range(30)], [f"title {i}" for i in range(30)], names, sequences)


@pytest.fixture(scope="session")
def text() -> np.ndarray:
    """A text table [31, 12] with a zero row 0."""
    table = np.random.default_rng(1).normal(size=(31, 12)).astype(np.float32)
    table[0] = 0
    return table


def write_table(path: Path, rows: np.ndarray, dataset: Dataset, manifest: dict) -> None:
    """The text table of `rows` [N, E], an item each."""
    with TableWriter(path, dataset, rows.shape[1], rows.dtype, manifest, {}) as writer:
        for item, row in enumerate(rows, 1):
            writer.put(item, row)
        writer.finish()


@pytest.fixture(scope="session")
def pantry_config() -> Config:
    """Prime Pantry, found through $PAD_JAX_DATA; tests that need it skip without."""
    folder = os.environ.get("PAD_JAX_DATA")
    if not folder or not (Path(folder) / "prime_pantry" / "Prime_Pantry_cleaned_history.csv").exists():
        pytest.skip("needs real data: set PAD_JAX_DATA to a folder with prime_pantry/")
    return resolve(config_dict("pantry", "all"))


@pytest.fixture(scope="module", autouse=True)
def _compiled_for_one_module():
    """Every compiled program holds memory maps, and a process may have 65,530 of them."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _prepared_elsewhere(tmp_path_factory, monkeypatch):
    """Prepared datasets go into a folder of the test."""
    from pad_jax.data import prepared

    monkeypatch.setattr(prepared, "ROOT", tmp_path_factory.mktemp("prepared"))
