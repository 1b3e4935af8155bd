"""MovieTweetings 100K, films rated on Twitter from February to September 2013: 16,554 users, 10,506 items.

    python main.py --config=configs/movietweetings.py:prepare
    python main.py --config=configs/movietweetings.py --config.method=blend

Two files are looked for in --config.data.path, $PAD_JAX_DATA/movietweetings or data/movietweetings:

    events.parquet   columns user, item, time (seconds since 1970); every rating is an event
    items.parquet    columns item, title (with the year), genres

They are ratings.dat and movies.dat of snapshots/100K of sidooms/MovieTweetings, whose fields `::` divides. The split is
by time, at 1 July and 1 August 2013: leaving one event out would train on months that come after many targets.
"""

from pad_jax.config import config_dict
from pad_jax.data.files import usual_folder


def get_config(job: str = "all"):
    config = config_dict("movietweetings", job, recipe="best")
    config.data.reader = "table"
    config.data.path = str(usual_folder("movietweetings"))
    config.data.time = (1372636800, 1375315200)
    config.table.events = "events.parquet"
    config.table.catalogue = "items.parquet"
    config.table.text = "{title}, {genres}"
    return config
