"""The demo: a generated dataset of 2,000 users and 1,000 items, no download (pad_jax/data/demo.py).

python main.py
"""

from pad_jax.config import config_dict


def get_config(job: str = "all"):
    return config_dict("demo", job, recipe="best")
