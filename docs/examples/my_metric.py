"""A metric: RBP@k, rank-biased precision of one relevant item, 0.2 * 0.8^(rank - 1) where rank <= k."""

import numpy as np

from pad_jax.config import config_dict
from pad_jax.evaluation.metrics import METRICS, Metric


def rank_biased_precision(ranks, k):
    return np.where(ranks <= k, 0.2 * 0.8 ** (ranks - 1), 0.0)


METRICS.register("RBP", Metric(rank_biased_precision))


def get_config(job: str = "all"):
    config = config_dict("demo", job, recipe="best", method="sasrec")
    config.train.select = "RBP@10"
    return config
