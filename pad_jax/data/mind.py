"""MIND, the news clicks of the paper. Its files cannot be read yet."""

from pad_jax.config import Config
from pad_jax.data.dataset import Dataset
from pad_jax.data.files import data_folder
from pad_jax.errors import UserError


def load(config: Config) -> Dataset:
    """Raises UserError: neither form of MIND can be read so far."""
    raise UserError(
        f"{data_folder(config.data, 'mind')}: reading MIND (behaviors.tsv and news.tsv, or the paper's prepared user "
        "and item tables) is not built yet; configs/pantry.py and configs/demo.py work"
    )
