"""An expert whose ID rows are shared: an item is the mean of a few codes, and its codes come from its text.

Each of `shared.books` books cuts one random direction of the text space into `shared.size` parts of as many items. Cold
items so borrow from warm ones that have the same codes.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.config import config_dict
from pad_jax.methods import METHODS
from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import pretrain_loss
from pad_jax.models.experts import EXPERTS, Expert
from pad_jax.settings import setting


@dataclass(frozen=True)
class SharedSettings:
    books: int = setting(4, "codes of an item", least=1)
    size: int = setting(32, "codes of a book", least=2)


class Shared(Expert):
    key, columns, by_item, reads_text = 101, 1, False, True

    def arrays(self, config, dataset, text):
        books, size = config.shared.books, config.shared.size
        directions = np.random.default_rng(config.seed).normal(size=(text.shape[1], books))
        places = np.argsort(np.argsort(text[1:] @ directions, axis=0), axis=0)  # of each item along each direction
        codes = 1 + places * size // dataset.items + size * np.arange(books)
        return {"codes": np.concatenate([np.zeros((1, books)), codes]).astype(np.int32)}  # item 0 has code 0, padding

    def table(self, config, key, items):
        rows = config.shared.books * config.shared.size + 1
        return (0.02 * jax.random.normal(key, (rows, config.model.width))).at[0].set(0)

    def look_up(self, table, ids, arrays):
        return jnp.mean(table[arrays["codes"][ids]], axis=1)


EXPERTS.register("shared", Shared(), settings=SharedSettings)
METHODS.register("coded", lambda config: Method("coded", (Phase("pretrain", ("id", "shared"), pretrain_loss),)))


def get_config(job: str = "all"):
    return config_dict("demo", job, recipe="best", method="coded")
