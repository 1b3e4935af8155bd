"""Where a run has its text vectors from: a table on disk, which is made when it is missing."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
from jaxtyping import Float

from pad_jax import parallel
from pad_jax.console import say
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.settings import Config
from pad_jax.text import encode
from pad_jax.text.table import check_finite, check_replaceable, check_settings, is_of_other_texts, read_table
from pad_jax.text.transform import Transform, fit


class TextTable(NamedTuple):
    """One vector per item, row 0 zeros, and the manifest that says how they came about."""

    rows: Float[np.ndarray, "I E"]
    manifest: dict[str, Any]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.rows.tobytes()).hexdigest()


def table_path(config: Config) -> Path:
    """Where the text table of a configuration is."""
    if config.text.table:
        return Path(config.text.table)
    name = f"{config.text.encoder}-{config.text.pooling}".strip("/").replace("/", "_")
    return Path("runs") / config.dataset / f"text-{name}.safetensors"


class TextSource:
    """The text vectors of a dataset's items. `needed` names the method that cannot do without, if there is one."""

    def __init__(self, config: Config, dataset: Dataset, needed: str = ""):
        self.config, self.dataset, self.needed = config, dataset, needed

    @cached_property
    def path(self) -> Path:
        """`table_path`; where that holds the table of other texts, with a hash of these behind the name."""
        usual = table_path(self.config)
        if self.config.text.table or not is_of_other_texts(usual, self.dataset):
            return usual
        return usual.with_name(f"{usual.stem}-{self.dataset.texts_sha256[:8]}{usual.suffix}")

    def encode(self, again: bool = False) -> None:
        """Makes the table, when it is missing or `again`; while another run makes it, this one waits."""
        path = self.path
        check_replaceable(path)
        if parallel.is_main() and (again or not path.exists()):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with filelock.FileLock(path.with_name(f".{path.name}.lock")):
                    if again or not path.exists():
                        encode.encode_table(path, self.dataset, self.config.text)
                        say(f"text table: {path}")
            except OSError as error:
                raise UserError(f"text table {path} cannot be written ({error}); set --config.text.table") from error
        parallel.wait("encode")

    @cached_property
    def table(self) -> TextTable | None:
        """The table; None where no method needs it and there is none."""
        text, path = self.config.text, self.path
        if not path.exists():
            if text.table:
                raise UserError(f"config.text.table={path} does not exist; make it with the job `encode`")
            if not self.needed:
                return None
            if not encode.available():
                raise UserError(
                    f"method {self.needed} reads item texts, but there is no table {path} and no torch to make one: "
                    f"{encode.INSTALL}, or set --config.text.table"
                )
            self.encode()
        rows, manifest = read_table(path, self.dataset)
        if not text.table:
            check_settings(path, manifest, text)
        if text.keep_in == "float16" and rows.dtype != np.float16:
            with np.errstate(over="ignore"):
                rows = rows.astype(np.float16)
            check_finite(path, rows[1:], range(1, len(rows)))
        return TextTable(rows, manifest)

    @cached_property
    def transform(self) -> Transform:
        """What text vectors go through before training reads them."""
        assert self.table is not None
        return fit(self.table.rows[1:], self.config)

    def for_training(self) -> Float[np.ndarray, "I E"]:
        """The table as training reads it: transformed, row 0 zeros."""
        assert self.table is not None
        rows = self.transform(self.table.rows[1:])
        return np.concatenate([np.zeros((1, rows.shape[1]), rows.dtype), rows]).astype(self.table.rows.dtype)
