"""Amazon Electronics, review data of 2018: one file of ratings and one of metadata (pad_jax/data/amazon.py).

They are looked for in --config.data.path, $PAD_JAX_DATA/electronics or data/electronics:

    Electronics.csv (item, user, rating, time) or Electronics_5.json.gz (reviews), and meta_Electronics.json.gz

    python main.py --config=configs/electronics.py:prepare   counts, beside the known ones
    python main.py --config=configs/electronics.py

Another category of the same data is another folder and name: --config.data.path=FOLDER --config.dataset=books
--config.data.reader=electronics.
"""

from pad_jax.config import config_dict


def get_config(job: str = "all"):
    return config_dict("electronics", job)
