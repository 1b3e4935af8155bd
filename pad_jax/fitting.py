"""Training from Python: the jobs of the command line, with tables in memory."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pad_jax.config import configure
from pad_jax.console import quiet
from pad_jax.data.assemble import histories_in
from pad_jax.data.frames import Table, as_file
from pad_jax.data.table import event_columns, item_columns
from pad_jax.errors import UserError
from pad_jax.files import check_name
from pad_jax.pipeline import Run
from pad_jax.run import train
from pad_jax.serving import Model
from pad_jax.settings import dotted, with_fields
from pad_jax.training.loop import Callback

#: What `fit` sets itself.
_OURS = ("job", "dataset", "data.reader", "table.events", "table.catalogue")


def fit(
    events: Table,
    items: Table,
    *,
    method: str = "blend",
    recipe: str = "best",
    seed: int = 0,
    dataset: str = "table",
    workdir: str | Path | None = None,
    progress: bool = False,
    callbacks: Iterable[Callback] = (),
    **settings: Any,
) -> Model:
    """Trains a method on a table of events and a catalogue: what `python main.py` does with a file like
    configs/table.py, and bit for bit the same.

    A training that was stopped goes on when it is called again with the same data and settings, and one that is
    finished is loaded. Data frames are written once to runs/<dataset>/tables/, from where every job of the command line
    can go on with the workdir. The model knows the histories of the users.

    Args:
        events: a data frame of polars or pandas, or the path of a file, with the columns `user`, `item` and `time`;
            the settings of `table` name other ones.
        items: of the catalogue, likewise, with `item` and `title`.
        method: what is trained.
        recipe: the values of every field that `settings` leave out.
        seed: of every random draw.
        dataset: name of the folder under runs/ that the workdir is in.
        workdir: folder of the run; None: runs/<dataset>/<method>-<backbone>-<loss>-<recipe>-s<seed>, with a hash behind
            it where that holds another run.
        progress: whether the lines of the command line are printed, among them which events were not used, and why.
        callbacks: called after each epoch with an `Epoch`: phase, number, losses, validation metrics. Where one returns
            True the phase ends there, as if its epochs were over.
        settings: any other field of the configuration, a section as a dictionary: `pretrain={"epochs": 5}`,
            `table={"text": "{title} by {brand}"}`, `loss="bce"`.

    Raises UserError for whatever the user has to mend, with the field or the column in one line.
    """
    given = dotted(settings)
    refused = [name for name in given if name in _OURS]
    if refused:
        raise UserError(f"config.{refused[0]} is set by fit itself: leave it out")
    given |= {"method": method, "recipe": recipe, "seed": seed, "data.reader": "table"}
    config = configure(dataset, given)
    if workdir is not None:
        check_name(Path(workdir), "workdir")
    with quiet(not progress):
        files = {
            "table.events": as_file(events, list(event_columns(config.table).values()), "events", dataset),
            "table.catalogue": as_file(items, item_columns(config.table), "items", dataset),
        }
        config = with_fields(config, {name: str(path) for name, path in files.items()})
        run = Run(config, None if workdir is None else Path(workdir), _command, tuple(callbacks))
        train(run)
        model = run.model()
    unused = [part for part in run.dataset.account.split("; ") if part.startswith("not used: ")]
    if unused and not progress:
        warnings.warn(unused[0], stacklevel=2)
    return Model(model.artifact, histories_in(run.dataset), run.path)


def _command(job: str, workdir: Path | None) -> str:
    return f"pad_jax.fit(.., workdir={str(workdir)!r})" if job == "all" else f"the job {job} of the command line"
