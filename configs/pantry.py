"""Amazon Prime Pantry: 12,871 users, 8,347 items, 115,004 events.

    python main.py --config=configs/pantry.py --config.recipe=best --config.method=blend

Files are looked for in --config.data.path, $PAD_JAX_DATA/prime_pantry or data/prime_pantry, and else downloaded
from the authors' repository. To expect on the test split: HR@10 about 9.4 %, nDCG@10 about 5.8 %, in ten minutes on one
CPU core.
"""

from pad_jax.config import config_dict


def get_config(job: str = "all"):
    return config_dict("pantry", job)
