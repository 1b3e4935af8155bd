"""The job `refit`: the method of a finished run again, on every event, for the epochs that the run chose."""

from typing import Any

from pad_jax import parallel
from pad_jax.console import say
from pad_jax.errors import UserError
from pad_jax.evaluation import popularity
from pad_jax.pipeline import Run
from pad_jax.settings import Config, with_fields
from pad_jax.workdir.identity import REFIT, locked


def refit(run: Run) -> dict[str, Any]:
    """Trains in `<workdir>/refit/`, writes its `model/` and returns its results, which hold no metrics.

    Settings, seed and data are the run's. Each phase has as many epochs as the run had up to its best one, and the
    model is of the phase that the run serves. A phase that learns from validation events, which train now, keeps what
    it has learned in the run.

    Raises UserError for a run that is not finished, or of other data than are there.
    """
    if not run.config.data.holdout:
        raise UserError(f"{run.path} was trained on every event: refit the run that chose its epochs")
    if not run.is_finished:
        raise UserError(f"{run.path} is not finished; finish it with: {run.command('all')}")
    run.check_rules()
    again = Run(as_chosen(run), run.path / REFIT, run.tell, base=run)
    _ = again.workdir  # refused before anything is written
    with locked(again.path):
        again.train(again.method.phases)
        parallel.wait("results")
        again.export()
        again.show()
    say(f"lists from it: {again.command('recommend')}")
    return again.workdir.results


def as_chosen(run: Run) -> Config:
    """The settings of a finished run, without a holdout and with the budgets that its validation chose."""
    finished = run.workdir.results["phases"]
    budgets = {f"{name}.epochs": phase["best_epoch"] for name, phase in finished.items()}
    budgets |= {f"{name}.minutes": 0.0 for name in finished}
    beta = popularity.beta_of(finished[run.served.name])
    served = {"eval.serve": run.served.name, "eval.popularity": beta}
    return with_fields(run.config, {"job": "all", "data.holdout": False} | served | budgets)
