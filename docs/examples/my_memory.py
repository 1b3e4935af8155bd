"""An expert with a score of its own: which items followed the newest one in training, as sparse lists.

It has no vectors; its score of an item is scale * log(1 + count), and in training the event that is to be predicted is
taken out of the counts, or the memory would know every answer. The method joins it with the ID expert.
"""

from collections import Counter
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from pad_jax.config import config_dict
from pad_jax.methods import METHODS
from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import pretrain_loss
from pad_jax.models.experts import EXPERTS, Expert
from pad_jax.settings import setting


@dataclass(frozen=True)
class MemorySettings:
    followers: int = setting(20, "items that are remembered of each item, the most frequent ones", least=1)


class Memory(Expert):
    key, own_score = 100, True

    def arrays(self, config, dataset, text):
        counts = [Counter() for _ in range(dataset.items + 1)]
        for begin, end in zip(dataset.starts, dataset.cuts.train_end, strict=False):
            for last, item in zip(dataset.events[begin : end - 1], dataset.events[begin + 1 : end], strict=True):
                counts[last][int(item)] += 1
        following = np.zeros((dataset.items + 1, config.memory.followers), np.int32)  # 0 is padding
        often = np.zeros(following.shape, np.float32)
        for last, found in enumerate(counts):
            best = found.most_common(config.memory.followers)
            following[last, : len(best)] = [item for item, _ in best]
            often[last, : len(best)] = [count for _, count in best]
        return {"following": following, "often": often}

    def look_up(self, table, ids, arrays):
        return {"item": ids, "following": arrays["following"][ids], "often": arrays["often"][ids]}

    def init(self, config, key, items, text_width):
        return {"encoders": {"scale": jnp.ones(())}}

    def users(self, config, encoder, x, layout, target=None, rngs=None):
        often = x["often"]
        if target is not None:
            often = jnp.maximum(often - (x["following"] == target[:, None]), 0)
        return {"following": x["following"], "weight": encoder["scale"] * jnp.log1p(often)}

    def score(self, users, items, rows):
        if len(items["item"]) < rows:  # a few items: compare them
            same = users["following"][:, :, None] == items["item"][None, None]
            return jnp.where(same, users["weight"][:, :, None], 0).sum(axis=1)
        user = jnp.arange(len(users["weight"]))[:, None]
        return jnp.zeros((len(user), rows)).at[user, users["following"]].add(users["weight"])[:, items["item"]]


EXPERTS.register("memory", Memory(), settings=MemorySettings)
METHODS.register("recall", lambda config: Method("recall", (Phase("pretrain", ("id", "memory"), pretrain_loss),)))


def get_config(job: str = "all"):
    return config_dict("demo", job, recipe="best", method="recall")
