"""Where a run has its text vectors from: tables on disk, made when they are missing, and the words of the texts."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import scipy.sparse
from jaxtyping import Float

from pad_jax import parallel, sealed
from pad_jax.console import say
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.settings import Config
from pad_jax.text import encode
from pad_jax.text.lexical import Lexicon, with_padding
from pad_jax.text.served import Text
from pad_jax.text.settings import LEXICAL, beside
from pad_jax.text.table import (
    SETTINGS,
    check_finite,
    check_replaceable,
    check_settings,
    is_of_other_texts,
    read_table,
)
from pad_jax.text.transform import Transform, fit


class TextTable(NamedTuple):
    """One vector per item, row 0 zeros, and the manifest that says how they came about.

    Sparse rows are what `lexicon` makes of the texts, and no file.
    """

    rows: Float[np.ndarray, "I E"] | scipy.sparse.csr_matrix
    manifest: dict[str, Any]
    lexicon: Lexicon | None = None

    @property
    def sha256(self) -> str:
        return sealed.digest(self.manifest) if self.lexicon else hashlib.sha256(self.rows.tobytes()).hexdigest()


def table_path(config: Config) -> Path:
    """Where the text table of a configuration is."""
    if config.text.table:
        return Path(config.text.table)
    raw = "" if config.text.normalize else "-raw"
    name = f"{config.text.encoder}-{config.text.pooling}{raw}".strip("/").replace("/", "_")
    return Path("runs") / config.dataset / f"text-{name}.safetensors"


def is_lexical(config: Config) -> bool:
    """Whether the (first) table of a configuration is made of words, without a file or an encoder."""
    return config.text.encoder == LEXICAL and not config.text.table


def as_made(config: Config, manifest: Mapping[str, Any]) -> Config:
    """With the encoder that a further table says it was made by, where that is a file."""
    said = {name: manifest[name] for name in SETTINGS if name in manifest} if config.text.table else {}
    text = replace(config.text, **said | {"adapters": tuple(said.get("adapters", ()))})
    return replace(config, **{"text": text})


def encoded_as(text: Text, configs: Sequence[Config], texts: Sequence[str]) -> Float[np.ndarray, "R E"] | None:
    """Texts as the encoders of a trained model's tables make them, side by side; None where all tables are of words.

    `configs` are of the tables, in their order. Raises UserError for own vectors, for another encoder than that of a
    table, and where torch or the encoder is missing.
    """
    tables = zip(configs, text.tables, strict=True) if text.tables else ()
    brought = [(config, table) for config, table in tables if table.lexicon is None]
    for config, table in brought:
        if table.manifest.get("own"):
            raise UserError(
                f"the model reads own vectors ({table.manifest['encoder']}), which no encoder makes: bring those of "
                f"the new texts{', of all its encoders side by side' if len(brought) > 1 else ''}"
            )
        check_settings(table_path(config), table.manifest, config.text)
    parts = [encode.encode(texts, config.text)[0] for config, _ in brought]
    return np.concatenate(parts, axis=1) if parts else None


class TextSource:
    """The text vectors of a dataset's items: a table, and `more` beside it, each a source of its own.

    `needed` names the method that cannot do without, if there is one. `earlier` is what the model that training begins
    with knows of its tables: their words and transforms are used again, since its parameters are of these directions.
    """

    def __init__(self, config: Config, dataset: Dataset, needed: str = "", earlier: Text | None = None):
        self.config, self.dataset, self.needed, self.earlier = config, dataset, needed, earlier

    @cached_property
    def more(self) -> list["TextSource"]:
        """The further tables, which training alone reads."""
        configs = beside(self.config) if self.needed else []
        for path in (config.text.table for config in configs if config.text.table):
            if not Path(path).exists():
                raise UserError(f"config.text.more: {path} does not exist; make it with the job `encode`")
        known = self.earlier.more if self.earlier else (None,) * len(configs)
        return [TextSource(config, self.dataset, self.needed, of) for config, of in zip(configs, known, strict=True)]

    @cached_property
    def sha256(self) -> str | None:
        """Of all tables; None where there is none."""
        shas = [source.table.sha256 for source in (self, *self.more) if source.table]
        return hashlib.sha256("".join(shas).encode()).hexdigest() if self.more else next(iter(shas), None)

    @cached_property
    def manifest(self) -> dict[str, Any] | None:
        """How all tables came about; None where there is none."""
        if self.table is None:
            return None
        others = [source.table.manifest for source in self.more if source.table]
        return self.table.manifest | ({"more": others} if others else {})

    @cached_property
    def path(self) -> Path:
        """`table_path`; where that holds the table of other texts, with a hash of these behind the name."""
        usual = table_path(self.config)
        if self.config.text.table or not is_of_other_texts(usual, self.dataset):
            return usual
        return usual.with_name(f"{usual.stem}-{self.dataset.texts_sha256[:8]}{usual.suffix}")

    def encode(self) -> None:
        """Makes every table anew that an encoder makes, but no further one that is a file."""
        for source in (self, *(TextSource(c, self.dataset) for c in beside(self.config) if not c.text.table)):
            if is_lexical(source.config):
                say(f"text.encoder={LEXICAL}: rows are made of the words when they are needed, there is no table")
            else:
                source.make(again=True)

    def make(self, again: bool = False) -> None:
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
        if is_lexical(self.config):
            known = self.earlier.lexicon if self.earlier else None
            lexicon = known or Lexicon.fit(self.dataset.texts)
            if not lexicon.number:
                raise UserError(
                    f"{self.dataset.name}: no title has a word, so text.encoder={LEXICAL} makes nothing of them"
                )
            manifest = {"encoder": LEXICAL, "rules": 1, "features": len(lexicon.number)}
            manifest |= {"texts_sha256": self.dataset.texts_sha256}
            return TextTable(with_padding(lexicon.rows(self.dataset.texts)), manifest, lexicon)
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
            self.make()
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
        """What vectors of the table go through before training reads them."""
        assert self.table is not None
        if self.earlier is None:
            return fit(self.table.rows[1:], self.config)
        if self.table.rows.shape[1] != self.earlier.width:
            raise UserError(
                f"config.start={self.config.start} reads text of width {self.earlier.width}, and that of "
                f"{self.dataset.name} has {self.table.rows.shape[1]}: bring vectors of the same encoder"
            )
        return self.earlier.transform

    def for_training(self) -> Float[np.ndarray, "I E"]:
        """All tables as training reads them: transformed, side by side, row 0 zeros."""
        parts = []
        for source in (self, *self.more):
            assert source.table is not None
            dtype = source.config.text.keep_in if source.table.lexicon else source.table.rows.dtype
            parts.append(source.transform(source.table.rows[1:]).astype(dtype))
        whole = np.zeros((1 + len(parts[0]), sum(part.shape[1] for part in parts)), np.result_type(*parts))
        np.concatenate(parts, axis=1, out=whole[1:])
        return whole

    def served(self) -> Text:
        """What the trained model knows of the tables."""
        table = self.table
        assert table is not None
        further = tuple(source.served() for source in self.more)
        return Text(table.rows.shape[1], table.manifest, self.transform, table.lexicon, further)
