"""Own data: a table of events and a catalogue (.csv, .tsv, .parquet or .jsonl), columns named by `table`.

    python main.py --config=configs/table.py --config.dataset=shop \\
        --config.table.events=events.csv --config.table.catalogue=items.csv

Or as a file of its own, which is shorter in the long run (see the README): `config_dict("shop", job)` with
`config.data.reader = "table"` and the fields of `table` that differ from pad_jax/config.py.
"""

from pad_jax.config import config_dict


def get_config(job: str = "all"):
    config = config_dict("table", job, recipe="best", method="blend")
    config.data.reader = "table"
    return config
