"""The job `tune`: an adapter of the text encoder, and for preferences the classes that a finished run gives."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from pad_jax import parallel
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.pipeline import Run
from pad_jax.text.clusters import item_classes
from pad_jax.text.tune import adapter_path
from pad_jax.text.tune import tune as tune_encoder
from pad_jax.training.checkpoint import Checkpoints
from pad_jax.training.step import merge
from pad_jax.workdir.identity import read_config
from pad_jax.workdir.results import read_results

PHASE = "pretrain"


def tune(run: Run) -> None:
    """Makes the adapter folder of the run's dataset and settings."""
    config, classes = run.config, None
    if parallel.processes() > 1:
        raise UserError("the job tune is work for one process: leave --processes out")
    if config.tune.kind == "preference":
        workdir = Path(config.tune.classes) if config.tune.classes else run.path
        table = id_vectors(workdir, run.dataset, run.command(PHASE))
        classes = item_classes(table, run.dataset.counts, config.tune.clusters, config.seed)
    tune_encoder(adapter_path(config), run.dataset, config, classes)


def id_vectors(workdir: Path, dataset: Dataset, train: str) -> Float[np.ndarray, "I D"]:
    """The ID table of the phase `pretrain` of a workdir, its best epoch.

    Raises UserError where there is none of these items and events; `train` is a command that makes one.
    """
    finished = read_results(workdir).get("phases", {})
    if PHASE not in finished:
        raise UserError(
            f"{workdir} has no finished phase {PHASE}, which tells the classes of items: make it with {train}, or name "
            "the workdir of a run that has one with --config.tune.classes"
        )
    identity = read_config(workdir)
    if identity["dataset_sha256"] != dataset.fingerprint:
        raise UserError(f"{workdir} was made from other data: name another run with --config.tune.classes")
    with Checkpoints(workdir / PHASE / "checkpoints", identity["of"]) as checkpoints:
        params = merge(*checkpoints.parameters(finished[PHASE]["best_epoch"]))
    if "id" not in params.get("tables", {}):
        raise UserError(f"{workdir}: its phase {PHASE} has no ID vectors: name another run with --config.tune.classes")
    return parallel.on_host(params["tables"]["id"])
