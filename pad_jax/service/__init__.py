"""A trained model over HTTP: the job `serve`, its JSON API, and a page to explore lists with."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pad_jax import parallel
from pad_jax.console import say
from pad_jax.errors import UserError
from pad_jax.pipeline import Run
from pad_jax.recommend import of_today
from pad_jax.registry import SECTIONS
from pad_jax.service.hosts import Hosts
from pad_jax.serving import Model, load
from pad_jax.settings import Config, setting
from pad_jax.workdir.identity import locked


@dataclass(frozen=True)
class ServeSettings:
    """The job `serve`."""

    host: str = setting("127.0.0.1", "address that is listened on; 0.0.0.0: every one of the machine")
    port: int = setting(8000, "port that is listened on; 0: any free one", least=0, below=1 << 16)
    batch: int = setting(
        16, "requests that share a call of the device", "O, see `benchmarks.service`", least=1, below=257
    )
    waiting: int = setting(256, "requests that wait or are worked on; the next one is answered 503", least=1)
    body: int = setting(1 << 20, "largest body of a request", unit="bytes", least=1)
    history: int = setting(1000, "most items of a history", least=1)
    ids: int = setting(10_000, "most ids of `items`, `exclude`, or of `/similar`", least=1)
    k: int = setting(100, "longest list", least=1)
    users: bool = setting(True, "answer with histories of users, which are personal data, at `/users`")
    reload: float = setting(
        2.0, "how often a newer model in the folder is looked for; 0: never", unit="seconds", least=0
    )
    drain: float = setting(20.0, "what is in flight may take after SIGTERM", unit="seconds", least=0)
    beside: tuple[str, ...] = setting((), "workdirs or folders of models that are served, too")
    hosts: tuple[str, ...] = setting(
        (), "host names that it may be asked by, beside localhost and what `host` says; `*`: any (DNS rebinding)"
    )
    origins: tuple[str, ...] = setting((), "web origins whose pages may call the API (CORS)")

    def check(self, config: Config) -> None:
        del config
        Hosts(self.host, self.hosts)


SECTIONS.register("serve", ServeSettings)


def serve(run: Run) -> dict[str, Any]:
    """Serves the model of a run until SIGTERM or SIGINT, with the histories of the users of today's data.

    Returns nothing of interest. Raises UserError where the run holds no model, where its port cannot be had, and in a
    run of several processes.
    """
    if parallel.processes() > 1:
        raise UserError("the job serve is work for one process: leave --processes out")
    from pad_jax.service.app import run_until_stopped  # Starlette and uvicorn, which no other job needs
    from pad_jax.service.models import sources

    path, settings = run.path, run.config.serve
    with locked(path, reads=True):
        run.model()  # is made where it is missing or damaged
        histories, unseen = _histories(run) if settings.users else (None, frozenset())

    def known(folder: Path) -> Model:
        return Model(load(folder).artifact, histories, folder)

    found = sources([path, *map(Path, settings.beside)], known, unseen)
    run_until_stopped(found, settings, path)
    return {}


def _histories(run: Run) -> tuple[pl.DataFrame | None, frozenset[str]]:
    """(user, history) of today's data, and the users whose last event is the test target of the training."""
    try:
        rows = of_today(run)
        split = run.splits["test"]
    except UserError as error:
        say(f"users cannot be asked for by their ids: {error}")
        return None, frozenset()
    histories = pl.DataFrame(rows, {"user": pl.String, "history": pl.List(pl.String)}, orient="row")
    ids, names = run.dataset.item_ids, run.dataset.user_ids
    targets = {names[u]: ids[t - 1] for u, t in zip(split.user.tolist(), split.target.tolist(), strict=True)}
    unseen = frozenset(user for user, own in rows if own and targets.get(user) == own[-1])
    return histories, unseen


def settings_from(values: Mapping[str, Any]) -> ServeSettings:
    """Checked settings of a section of their own, for a service without a run. Raises UserError."""
    from pad_jax.settings import build

    return build({"dataset": "models", "serve": dict(values)}).serve


def fields() -> list[dataclasses.Field]:
    """Of the section."""
    return list(dataclasses.fields(ServeSettings))
