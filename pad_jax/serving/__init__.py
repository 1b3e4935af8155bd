"""A trained model outside its training: top-k lists, vectors of items and users, items that training never saw."""

import os
from pathlib import Path

from pad_jax import sealed
from pad_jax.sealed import DamagedError
from pad_jax.serving.artifact import Artifact
from pad_jax.serving.recommender import Recommendations, Recommender

__all__ = ["Artifact", "Recommendations", "Recommender", "load"]


def load(workdir: str | Path) -> Recommender:
    """The trained model of a workdir. Raises UserError as `Artifact.load`, and for the model of another run in it."""
    folder, config = Path(workdir) / "model", Path(workdir) / "config.json"
    artifact = Artifact.load(folder)
    if artifact.run and os.path.lexists(config):
        whose = sealed.read_json(config, sealed.FORMAT, "put it back")
        if whose.get("of", artifact.run) != artifact.run:
            raise DamagedError(
                folder, f"is of another run than {workdir}", "run the job `evaluate`, which makes it anew"
            )
    return Recommender(artifact)
