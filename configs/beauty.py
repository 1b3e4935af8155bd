"""Amazon Beauty 2014, 5-core, the sequences of S3-Rec: 22,363 users, 12,101 items, 198,502 events.

    python main.py --config=configs/beauty.py:prepare
    python main.py --config=configs/beauty.py --config.method=blend

Two files are looked for in --config.data.path, $PAD_JAX_DATA/amazon_beauty or data/amazon_beauty:

    events.parquet   columns user, item; a user's events stand in order of time, there are no times
    items.parquet    columns item, title, attributes (brand and categories)

They are made of data/Beauty.txt and data/Beauty_item2attributes.json of RUCAIBox/CIKM2020-S3Rec, whose numbers of
items data/beauty/datamaps.json of Wenyueh/LLM-RecSys-ID turns into ASINs, with the titles of
beauty/products_lookup.csv of dh-r/LLM-Sequential-Recommendation. Without times the split is leave-one-out.
"""

from pad_jax.config import config_dict
from pad_jax.data.files import usual_folder


def get_config(job: str = "all"):
    config = config_dict("beauty", job, recipe="best")
    config.data.reader = "table"
    config.data.path = str(usual_folder("amazon_beauty"))
    config.table.events = "events.parquet"
    config.table.catalogue = "items.parquet"
    config.table.time = ""
    config.table.text = "{title}, {attributes}"
    return config
