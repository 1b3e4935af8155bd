"""A trained model outside its training: top-k lists, vectors of items and users, items that training never saw."""

import os
from pathlib import Path

from pad_jax import sealed
from pad_jax.data.frames import Table
from pad_jax.sealed import DamagedError
from pad_jax.serving.artifact import Artifact, histories_in
from pad_jax.serving.lists import Recommendations
from pad_jax.serving.recommender import Model

__all__ = ["Artifact", "Model", "Recommendations", "Recommender", "load"]

Recommender = Model  # its name before 0.8


def load(folder: str | Path, events: Table | None = None) -> Model:
    """The trained model of a workdir, or of a folder that `Model.save` wrote.

    Lists for users by their ids need the users' histories: of `events`, a data frame or file as `Model.with_events`
    takes it, or else those that were saved with the model. Raises UserError as `Artifact.load` and `with_events`, and
    for the model of another run in a workdir.
    """
    folder = Path(folder)
    saved = os.path.lexists(folder / "model.safetensors")
    place, config = folder if saved else folder / "model", folder / "config.json"
    artifact = Artifact.load(place)
    if not saved and artifact.run and os.path.lexists(config):
        whose = sealed.read_json(config, sealed.FORMAT, "put it back")
        if whose.get("of", artifact.run) != artifact.run:
            raise DamagedError(place, f"is of another run than {folder}", "run the job `evaluate`, which makes it anew")
    model = Model(artifact, histories_in(place), folder)
    return model if events is None else model.with_events(events)
