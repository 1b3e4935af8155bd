"""A dataset: text files of one line per user, item ids in order, and a file of titles."""

from dataclasses import dataclass
from pathlib import Path

from pad_jax.config import config_dict
from pad_jax.data.dataset import from_sequences
from pad_jax.data.readers import READERS, Reader
from pad_jax.errors import UserError
from pad_jax.settings import setting


@dataclass(frozen=True)
class LinesSettings:
    folder: str = setting("lines", "where histories.txt (user item item ..) and titles.txt (item title) are")


def load(config):
    folder = Path(config.lines.folder)
    for name in ("histories.txt", "titles.txt"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} does not exist; set --config.lines.folder")
    titles = dict(line.split(" ", 1) for line in (folder / "titles.txt").read_text().splitlines())
    number = {item: n for n, item in enumerate(titles, 1)}
    users = [line.split() for line in (folder / "histories.txt").read_text().splitlines()]
    histories = [[number[item] for item in items][-config.data.keep :] for _, *items in users]
    return from_sequences(config.dataset, list(titles), list(titles.values()), [u for u, *_ in users], histories)


READERS.register("lines", Reader(load, timed=False), settings=LinesSettings)


def get_config(job: str = "all"):
    return config_dict("lines", job, recipe="best", method="sasrec")
