"""What a trained model knows of its text tables: enough to read the texts of items that training never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float

from pad_jax.errors import UserError
from pad_jax.text.lexical import Lexicon
from pad_jax.text.transform import Transform

_WIDEST = 1 << 20  # text that a model may have been trained on


@dataclass(frozen=True)
class Text:
    """A text table: the width of its rows, how it came about, what training made of them, and further tables."""

    width: int = 0  # 0: the model reads no text
    manifest: Mapping[str, Any] = field(default_factory=dict)
    transform: Transform = field(default_factory=lambda: Transform("none"))
    lexicon: Lexicon | None = None  # makes the rows from texts; None: they have to be brought
    more: "tuple[Text, ...]" = ()

    @property
    def tables(self) -> "tuple[Text, ...]":
        """All that the model reads, in their order."""
        return (self, *self.more) if self.width else ()

    @property
    def brought(self) -> "tuple[Text, ...]":
        """Those whose rows have to be brought."""
        return tuple(table for table in self.tables if table.lexicon is None)

    def rows(self, texts: Sequence[str], vectors: Float[np.ndarray, "R E"] | None = None) -> Float[np.ndarray, "R _"]:
        """What the model reads of R texts; `vectors` are the rows that have to be brought, side by side.

        Raises UserError for vectors of another shape or with NaN.
        """
        width = sum(table.width for table in self.brought)
        if vectors is not None and not width:
            raise UserError("the model makes its rows from the titles of new items: leave their vectors out")
        found = np.zeros((len(texts), 0), np.float32) if vectors is None else vectors
        if found.shape != (len(texts), width):
            names = ", then ".join(str(table.manifest.get("encoder", "the text table")) for table in self.brought)
            raise UserError(
                f"the vectors of {len(texts)} new items must be [{len(texts)}, {width}], as those of {names} are"
                f"{', side by side' if len(self.brought) > 1 else ''}, not "
                f"{'left out' if vectors is None else list(vectors.shape)}"
            )
        if not np.isfinite(found).all():
            raise UserError("the vectors of new items hold NaN or infinity")
        parts, begin = [], 0
        for table in self.tables:
            if table.lexicon is not None:
                raw: Any = table.lexicon.rows(texts)
            else:
                raw, begin = found[:, begin : begin + table.width], begin + table.width
            parts.append(table.transform(raw))
        return np.concatenate(parts, axis=1) if parts else found

    @property
    def read_width(self) -> int:
        """Of what the model reads."""
        blank = (np.zeros if t.lexicon is None else scipy.sparse.csr_matrix for t in self.tables)
        made = (t.transform(new((1, t.width), dtype=np.float32)) for t, new in zip(self.tables, blank, strict=True))
        return sum(rows.shape[1] for rows in made)

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(what JSON holds of it, its arrays), which `restored` reads."""
        about = {"transform": self.transform.kind, "manifest": dict(self.manifest), "text_width": self.width}
        arrays: dict[str, Any] = {"transform": dict(self.transform.arrays)}
        if self.lexicon is not None:
            arrays["lexicon"] = self.lexicon.arrays
        if self.more:
            parts = {str(n): table.saved() for n, table in enumerate(self.more)}
            about["more"] = [about for about, _ in parts.values()]
            arrays["more"] = {n: arrays for n, (_, arrays) in parts.items()}
        return about, arrays

    @classmethod
    def restored(cls, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> "Text":
        """Raises an error of some kind for what no `saved` gives."""
        lexicon = Lexicon.restored(arrays["lexicon"]) if "lexicon" in arrays else None
        width = int(about["text_width"])
        if not 0 <= width <= _WIDEST if lexicon is None else width != len(lexicon.number):
            raise ValueError(f"its text has the width {width}")
        of_transform = arrays.get("transform", {}) if about["transform"] != "none" else {}
        parts = arrays.get("more", {})
        more = tuple(cls.restored(one, parts.get(str(n), {})) for n, one in enumerate(about.get("more", ())))
        return cls(width, about["manifest"], Transform(about["transform"], of_transform), lexicon, more)
