"""A model whose weights are random, for what does not ask how good it is."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import polars as pl

from pad_jax.models.scorer import Scorer
from pad_jax.serving import Artifact, Model
from pad_jax.serving.artifact import Text
from pad_jax.settings import Config

USERS, _TEXT = 12, 8


def random_model(config: Config, titles: Sequence[str], seed: int = 0, histories: bool = True) -> Model:
    """PAD of items "i0", "i1", .. with these titles; user "u0" has met the items 0, 1, 2, "u1" 1, 2, 3, 4, ..

    The items' training counts fall from 60 by 3, to 0.
    """
    scorer, random, items = (
        Scorer(config, ("id", "aligned", "text"), config.gate.kind),
        np.random.default_rng(seed),
        len(titles),
    )
    width = config.model.width
    params = scorer.init(jax.random.key(seed), items, _TEXT)
    vectors: dict[str, Any] = {e: random.normal(size=(items + 1, width)).astype("f4") for e in scorer.experts}
    gates = random.dirichlet(np.ones(3), size=items + 1).astype("f4")
    for own in (*vectors.values(), gates):
        own[0] = 0
    counts = np.concatenate([[0], np.maximum(60 - 3 * np.arange(items), 0)]).astype(np.int32)
    ids = [f"i{n}" for n in range(items)]
    used = {part: params[part] for part in ("encoders", "towers", "gate")}
    artifact = Artifact(scorer, used, ids, list(titles), vectors, gates, Text(_TEXT, {"encoder": "random"}), counts)
    rows = [(f"u{u}", [f"i{(u + n) % items}" for n in range(3 + u)]) for u in range(USERS)]
    frame = pl.DataFrame(rows, {"user": pl.String, "history": pl.List(pl.String)}, orient="row")
    return Model(artifact, frame if histories else None)
