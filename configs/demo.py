"""The demo: a generated dataset of 2,000 users and 1,000 items, no download (pad_jax/data/demo.py).

    python main.py

Two cores, a few minutes; PAD ends well above its own phase 1 on cold items.
"""

from pad_jax.config import config_dict

#: The recipe `best` with fewer epochs: the demo is small.
EPOCHS = {"pretrain": {"epochs": 12}, "align": {"epochs": 6}, "finetune": {"epochs": 10}}


def get_config(job: str = "all"):
    return config_dict("demo", job, recipes={"best": EPOCHS}, recipe="best")
