"""Online Retail (UCI 352), purchases of gift-ware from December 2010 to December 2011: 4,335 users, 3,659 items.

    python main.py --config=configs/retail.py:prepare
    python main.py --config=configs/retail.py --config.method=blend

Two files are looked for in --config.data.path, $PAD_JAX_DATA/online_retail or data/online_retail:

    events.parquet   columns user, item, time (seconds since 1970): the first purchase of an item by a customer
    items.parquet    columns item (stock code), title (its most frequent description)

They are made of the UCI Machine Learning Repository's table (doi 10.24432/C5BW33) without cancellations, fees and rows
that name no customer. A customer's later purchases of an item are left out: the history is masked, and they could not
be found. The split is by time, at 1 October and 1 November 2011: the last purchase of most customers is of the same
invoice as the one before, and leaving it out would be to complete a basket.
"""

from pad_jax.config import config_dict
from pad_jax.data.files import usual_folder


def get_config(job: str = "all"):
    config = config_dict("retail", job, recipe="best")
    config.data.reader = "table"
    config.data.path = str(usual_folder("online_retail"))
    config.data.time = (1317427200, 1320105600)
    config.table.events = "events.parquet"
    config.table.catalogue = "items.parquet"
    return config
