"""A small shop, its jobs, and what they leave."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.children import Outcome, in_child

ONE, TWO, PART = (Path("runs/shop", name) for name in ("one", "two", "part"))
SETTINGS: dict[str, Any] = {
    "dataset": "shop",
    "data.reader": "table",
    "table.events": "events.csv",
    "table.catalogue": "items.csv",
    "text.table": "text.safetensors",
    "model.width": 8,
    "model.text_layers": 1,
    "sasrec.blocks": 1,
    "sasrec.heads": 1,
    "data.length": 8,
    "data.windows": "latest",
    "mmd.group": 4,
    "train.batch": 16,
    "eval.batch": 64,
    "method": "moc",  # it writes all that any method writes
    "codes.company": "smem",
    "codes.books": 2,
    "codes.size": 4,
    "codes.latent": 4,
    "codes.hidden": "(8,)",
    "codes.steps": 20,
    "blend.words": 8,
    "pretrain.epochs": 2,
    "finetune.epochs": 2,
    "align.epochs": 2,
    "study.seeds": "(0,)",
    "study.only": "('pad',)",
}


def make(folder: Path) -> None:
    """Tables, a text table, two finished runs of different seeds with lists, and the first phase of one."""
    rows = [(f"u{u}", f"i{(3 * u + 5 * n + u * n) % 40}", 10 * n + u % 10) for u in range(40) for n in range(6 + u % 3)]
    (folder / "events.csv").write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    (folder / "items.csv").write_text("item,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(40)))
    check(in_child(_text_table, folder))
    for job, path, seed in (("all", ONE, 0), ("recommend", ONE, 0), ("all", TWO, 1), ("recommend", TWO, 1)):
        check(run(folder, job, path, {"seed": seed}))
    check(run(folder, "pretrain", PART))


def check(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.said


def _text_table() -> int:
    from pad_jax.cli import parse
    from pad_jax.pipeline import Run
    from tests.support.data import write_table

    dataset = Run(parse(["main.py", "--config=table:prepare", *flags({})]).config, None, str).dataset
    rows = np.random.default_rng(0).normal(size=(dataset.items, 8)).astype(np.float32)
    write_table(Path("text.safetensors"), rows, dataset, {"encoder": "random"})
    return 0


def flags(fields: Mapping[str, Any]) -> list[str]:
    return [f"--config.{name}={value}" for name, value in (SETTINGS | fields).items()]


def command(job: str, path: Path | None, fields: Mapping[str, Any] | None = None) -> int:
    """A job of the command line, a report, or lists of the loaded model, in this process."""
    if job == "report":
        from pad_jax.report.__main__ import main as report

        return report([str(path), "--against", str(TWO)])
    if job == "load":
        return _load(path or ONE)
    from pad_jax.__main__ import command as main

    place = [] if path is None else [f"--workdir={path}"]
    sys.argv = ["main.py", f"--config=table:{job}", *flags(fields or {}), *place]
    return main()


def _load(path: Path) -> int:
    from pad_jax import builtin  # noqa: F401 (registers)
    from pad_jax.errors import UserError
    from pad_jax.serving import load

    try:
        found = load(path).recommend([["i1", "i2"]], k=5)
    except UserError as error:
        print(f"error: {error}")
        return 2
    parts = found.items, found.titles, found.scores, found.experts
    np.savez("loaded.npz", *(np.asarray(part).astype(str) for part in parts))
    return 0


def run(folder: Path, job: str, path: Path | None, fields: Mapping[str, Any] | None = None) -> Outcome:
    """A job in a process of its own."""
    return in_child(lambda: command(job, path, fields), folder)


def copy(shop: Path, folder: Path) -> None:
    """Anew."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(shop, folder, symlinks=True)


def results(run: Path, ranks_too: bool = True) -> Any:
    """All that a run says of its metrics, and its ranks."""
    from safetensors.numpy import load_file

    found = json.loads((run / "results.json").read_text())
    ranks = load_file(run / "ranks.safetensors") if ranks_too else {}
    phases = {name: (phase["valid"], phase["test"], phase["best_epoch"]) for name, phase in found["phases"].items()}
    arrays = {name: values.tolist() for name, values in sorted(ranks.items())}
    return phases, found["test"], found["baselines"], arrays


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def leftovers(folder: Path) -> Iterator[Path]:
    """What nothing but a killed process leaves."""
    for path in folder.rglob("*"):
        if path.name.endswith(".partial") or "orbax-checkpoint-tmp" in path.name:
            yield path


def quick() -> dict[str, str]:
    """The environment of processes that compile fast, and once for all of them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pad_jax" / "xla-tests"
    return {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "JAX_PLATFORMS": "cpu",
    }
