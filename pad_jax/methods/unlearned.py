"""Experts that nothing trains: what followed the latest items in training, and the words of their titles."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pad_jax.batching.layout import Layout
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.evaluation.baselines import DECAY, next_counts
from pad_jax.models.experts import EXPERTS, Expert, Params, profile, profile_weights
from pad_jax.models.towers import unit
from pad_jax.settings import Config
from pad_jax.text.lexical import Lexicon
from pad_jax.text.transform import Transform, whiten


class Unlearned(Expert):
    """An expert without parameters."""

    learns = False

    def init(self, config: Config, key: PRNGKeyArray, items: int, text_width: int) -> dict[str, Any]:
        return {}


class FollowersExpert(Unlearned):
    """The mean of log(1 + C[h, i]) over the latest items h, each with `DECAY` times the weight of the next.

    C are the next-item counts of the baseline: the largest `blend.followers` of each item. The item side is the whole
    catalogue or nothing, for it holds the followers of h. A new item has followed nothing, and nothing has followed it.
    """

    key, own_score, knows_new = 14, True, True

    def arrays(self, config: Config, dataset: Dataset, text: Any) -> dict[str, Any]:
        followed = next_counts(dataset)
        followed.data = np.log1p(followed.data)
        return largest(followed, config.blend.followers)

    def look_up(self, table: Any, ids: Int[Array, " R"], arrays: Params) -> Any:
        return {"id": ids} | {name: arrays[name][ids] for name in ("item", "value")}

    def new_rows(self, config: Config, table: Any, arrays: Params, text: Float[Array, "R E"]) -> Any:
        shape = len(text), config.blend.followers  # as item 0, which has none
        return {
            "id": jnp.zeros(len(text), jnp.int32),
            "item": jnp.zeros(shape, jnp.int32),
            "value": jnp.zeros(shape),
        }

    def users(self, config: Config, encoder: Params, x: Any, layout: Layout, target=None, rngs=None) -> Any:
        weight = profile_weights(layout, DECAY)
        ids = jnp.broadcast_to(layout.bins(x["id"])[:, None], weight.shape)
        return {name: part.reshape(-1, weight.shape[-1]) for name, part in (("id", ids), ("weight", weight))}

    def weighed(self, users: Any, weight: Float[Array, " T"]) -> Any:
        return users | {"weight": users["weight"] * weight[:, None]}

    def score(self, users: Any, items: Any, rows: int) -> Float[Array, "n m"]:
        if len(items["item"]) != rows:
            raise UserError("the expert followers scores the whole catalogue alone: use a loss over it, as ce")
        item, value = (items[name][users["id"]] for name in ("item", "value"))
        number = jnp.arange(len(item))[:, None, None]
        return jnp.zeros((len(item), rows)).at[number, item].add(users["weight"][..., None] * value)


class WordsExpert(Unlearned):
    """The cosine of tf-idf vectors, of an item's title and of the latest titles, each `DECAY` times the next.

    Of the words and pairs that two titles have, along their `blend.words` principal directions. A new item needs its
    title and nothing else.
    """

    key, knows_new, reads_titles, kept = 13, True, True, ("lexicon", "transform", "rows")

    def width(self, config: Config) -> int:
        return config.blend.words

    def row(self, config: Config) -> tuple[int, ...]:
        return (config.blend.words,)

    def arrays(self, config: Config, dataset: Dataset, text: Any) -> dict[str, Any]:
        lexicon = Lexicon.fit(dataset.texts, least=2)
        words = lexicon.rows(dataset.texts)
        transform = whiten(words, config.blend.whitening, config.blend.words) if words.nnz else Transform("none", {})
        made = {"lexicon": lexicon.arrays, "transform": dict(transform.arrays)}
        rows = self._rows(config, made, dataset.texts)
        return made | {"rows": np.concatenate([np.zeros_like(rows[:1]), rows])}

    def look_up(self, table: Any, ids: Int[Array, " R"], arrays: Params) -> Float[Array, "R K"]:
        return arrays["rows"][ids]

    def new_rows(
        self, config: Config, table: Any, arrays: Params, text: Float[Array, "R E"], titles: Any = ()
    ) -> Float[Array, "R K"]:
        return jnp.asarray(self._rows(config, arrays, titles))

    def users(
        self, config: Config, encoder: Params, x: Float[Array, "T K"], layout: Layout, target=None, rngs=None
    ) -> Float[Array, "T K"]:
        return unit(profile(x, layout, DECAY))

    @staticmethod
    def _rows(config: Config, arrays: Params, titles: Any) -> Float[np.ndarray, "R K"]:
        """Unit rows of titles; zeros for a title of which nothing is known."""
        known = {"features": np.asarray(arrays["lexicon"]["features"], np.uint8)}
        known["weights"] = np.asarray(arrays["lexicon"]["weights"], np.float64)  # float32 where they were on a device
        words = Lexicon.restored(known).rows(titles)
        if not arrays["transform"]:
            return np.zeros((len(titles), config.blend.words), np.float32)
        transform = Transform("whiten", {name: np.asarray(x) for name, x in arrays["transform"].items()})
        rows = transform(words) * (words.getnnz(axis=1) > 0)[:, None]
        return np.pad(rows, ((0, 0), (0, config.blend.words - rows.shape[1]))).astype(np.float32)


def largest(matrix: scipy.sparse.csr_matrix, count: int) -> dict[str, np.ndarray]:
    """The `count` largest values of each row and their columns, [I, count] each; zeros where there are fewer."""
    column, value = (np.zeros((matrix.shape[0], count), kind) for kind in (np.int32, np.float32))
    for row in np.nonzero(np.diff(matrix.indptr))[0]:
        part = slice(*matrix.indptr[row : row + 2])
        order = np.argsort(-matrix.data[part], kind="stable")[:count]
        column[row, : len(order)], value[row, : len(order)] = matrix.indices[part][order], matrix.data[part][order]
    return {"item": column, "value": value}


EXPERTS.register("followers", FollowersExpert())
EXPERTS.register("words", WordsExpert())
