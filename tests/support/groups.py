"""A finished row of a study that was never run."""

import numpy as np

from pad_jax.report.groups import RunGroup


class Group(RunGroup):
    """A finished row by its users' metric alone; `valid` is its nDCG@10 on validation, else that of test."""

    def __init__(self, values, seeds=(0,), valid=None, phases=None, **means):
        self.values, self.means = np.asarray(values, np.float64), means
        chosen = {"nDCG@10": self.values.mean() if valid is None else valid}
        shared = {"valid": chosen, "phases": phases or {}}
        self.results = [{"seed": s, "test": {"nDCG@10": self.values.mean() + s / 100}} | shared for s in seeds]

    def by_seed(self, metric):
        del metric
        return {r["seed"]: self.values for r in self.results}

    def mean(self, users, metric):
        del metric
        return self.means.get(users, self.values.mean())
