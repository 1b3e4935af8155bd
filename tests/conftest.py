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

from pathlib import Path

from jaxtyping import install_import_hook

ROOT = Path(__file__).parents[1]
# The checks cost a call more than most calls do: modules that name no shape are left to mypy.
SHAPED = [path for path in ROOT.glob("pad_jax/**/*.py") if "jaxtyping" in path.read_text()]
install_import_hook([".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SHAPED], "beartype.beartype")

import gc
import shutil

import jax
import numpy as np
import pytest

from pad_jax.config import config_dict, resolve
from pad_jax.data.dataset import Dataset
from pad_jax.pipeline import Run
from pad_jax.run import run
from pad_jax.settings import Config
from pad_jax.studies.study import inherit
from pad_jax.workdir.identity import locked
from tests.support import registries
from tests.support.data import small_config, tiny_dataset, tiny_text, write_table

jax.config.update("jax_numpy_rank_promotion", "raise")
EPOCHS = {"pretrain.epochs": 1, "align.epochs": 1, "finetune.epochs": 1}


def pytest_configure(config):
    del config
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pad_jax" / "xla-tests"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_collection_finish():
    """What is imported by now stays: to look through it again and again takes a tenth of the time of tracing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Groups of pytest-xdist, with any pytest.

    Its version 3.8 adds a test's group to `_nodeid`, which pytest 9.2 no longer reads: every test went to any worker.
    """
    for item in items:
        named = getattr(item, "_nodeid", item.nodeid)
        if named != item.nodeid:
            item._id = type(item._id).parse(named)


@pytest.fixture
def make_config():
    """A small Config; overrides are dotted names, with __ for the dot where Python wants a name."""
    return small_config


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture(scope="session")
def text() -> np.ndarray:
    """A text table [31, 12] with a zero row 0."""
    return tiny_text()


@pytest.fixture
def world(dataset, text, tmp_path, monkeypatch):
    """The tiny dataset under the name `demo`, in an empty current folder: the fields of a run with a text table."""
    monkeypatch.chdir(tmp_path)
    registries.as_demo(dataset)
    write_table(tmp_path / "text.safetensors", text[1:], dataset, {"encoder": "random"})
    return {"text.table": str(tmp_path / "text.safetensors"), **EPOCHS}


@pytest.fixture(scope="session")
def trainings():
    """Workdirs that a test has trained, by what they are of."""
    return {}


def _command(job: str, _: Path | None) -> str:
    return job


@pytest.fixture
def train(world, make_config, tmp_path, tmp_path_factory, trainings):
    """A configuration and a workdir of its own with the finished run; the same run is made once."""

    def trained(method="pad", backbone="sasrec", gate="bucket"):
        fields = {"method": method, "backbone": backbone, "gate.kind": gate, "eval.serve": "last"}
        config, name = make_config("best", **world | fields), (method, backbone, gate)
        if name not in trainings:
            workdir = tmp_path_factory.mktemp("trained") / "w"
            if gate != "bucket":  # the phases before the gate's own are those of the run without it
                base, _ = trained(method, backbone)
                new, old = Run(config, workdir, _command), Run(base, trainings[method, backbone, "bucket"], _command)
                with locked(new.path):
                    inherit(new, old, [phase.name for phase in new.method.phases[:-1]])
            run(config, workdir)
            trainings[name] = workdir
        workdir = tmp_path / f"w{len(list(tmp_path.iterdir()))}"
        shutil.copytree(trainings[name], workdir)
        return config, workdir

    return trained


@pytest.fixture
def trained(train):
    return train()


@pytest.fixture(scope="session")
def pantry_config() -> Config:
    """Prime Pantry, found through $PAD_JAX_DATA; tests that need it skip without."""
    folder = os.environ.get("PAD_JAX_DATA")
    if not folder or not (Path(folder) / "prime_pantry" / "Prime_Pantry_cleaned_history.csv").exists():
        pytest.skip("needs real data: set PAD_JAX_DATA to a folder with prime_pantry/")
    return resolve(config_dict("pantry", "all"))


@pytest.fixture(scope="module", autouse=True)
def _few_compiled():
    """Every compiled program holds memory maps, and a process may have 65,530 of them."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or len(maps.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _registries():
    """What a test registers is gone after it."""
    with registries.restored():
        yield


@pytest.fixture(autouse=True)
def _short_look_ahead(monkeypatch):
    """Sizes of batches are known after a thousand users where there are forty: the look at more takes a second."""
    from pad_jax.training import loop

    monkeypatch.setattr(loop, "SAMPLE", 1 << 10)


@pytest.fixture(autouse=True)
def _prepared_elsewhere(tmp_path_factory, monkeypatch):
    """Prepared datasets go into a folder of the test."""
    from pad_jax.data import prepared

    monkeypatch.setattr(prepared, "ROOT", tmp_path_factory.mktemp("prepared"))
