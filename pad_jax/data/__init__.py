"""Datasets: one reader per raw format."""

from collections.abc import Callable

from pad_jax.config import Config
from pad_jax.data import demo, mind, pantry
from pad_jax.data.dataset import Dataset

#: The reader of each `config.dataset`; another one is an entry more.
READERS: dict[str, Callable[[Config], Dataset]] = {"demo": demo.load, "pantry": pantry.load, "mind": mind.load}
