"""A trained model outside its training: top-k lists, vectors of items and users, items that training never saw."""

from pathlib import Path

from pad_jax.serving.artifact import Artifact
from pad_jax.serving.recommender import Recommendations, Recommender

__all__ = ["Artifact", "Recommendations", "Recommender", "load"]


def load(workdir: str | Path) -> Recommender:
    """The trained model of a workdir. Raises UserError as `Artifact.load`."""
    return Recommender(Artifact.load(Path(workdir) / "model"))
