"""The generated dataset."""

from dataclasses import replace

import numpy as np

from pad_jax.config import config_dict, resolve
from pad_jax.data import demo
from pad_jax.data.dataset import frequency_group


def test_demo_is_what_it_says():
    config = resolve(config_dict("demo", "all"))
    data, again = demo.load(config), demo.load(replace(config, seed=5))
    assert (data.users, data.items) == (2000, 1000)
    assert data.fingerprint == again.fingerprint
    assert "generated" in data.note
    groups = frequency_group(data.counts[1:])
    assert 0.4 < (groups["cold"] | groups["unseen"]).mean() < 0.6
    assert np.diff(data.starts).min() >= 5
    assert all(any(product in title for _, products in demo.TOPICS for product in products) for title in data.titles)
