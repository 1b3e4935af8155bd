"""Lists of recommendations: as arrays, and as what other programs read."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Recommendations:
    """k items for each of B rows, best first; where there are fewer than k candidates, "" with score -inf.

    Going through it gives a plain dictionary a row, see `to_dicts`.
    """

    items: np.ndarray  # [B, k] item ids
    titles: np.ndarray  # [B, k]
    scores: Float[np.ndarray, "B k"]
    experts: np.ndarray  # [B, k] the expert with the largest gate * score
    because: np.ndarray | None = None  # [B, k] ids of events, None where there is none; None: nobody asked
    users: Sequence[str | None] = ()  # [B] ids, None of a row that is a history; empty: no row is a user's
    errors: Sequence[str | None] = ()  # [B] why a row has no items; empty: no row has one
    parts: Float[np.ndarray, "B k K"] | None = None  # of each score, by expert; None: of no `recommend`

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._row, range(len(self)))

    def _row(self, row: int) -> dict[str, Any]:
        names = ["item", "title", "score", "expert"] + ["because"] * (self.because is not None)
        there = self.items[row] != ""
        columns = [self.items, self.titles, self.scores, self.experts, self.because][: len(names)]
        values = zip(*(column[row][there].tolist() for column in columns if column is not None), strict=True)
        return {
            "user": self.users[row] if self.users else None,
            "items": [dict(zip(names, listed, strict=True)) for listed in values],
            "error": self.errors[row] if self.errors else None,
        }

    def to_dicts(self) -> list[dict[str, Any]]:
        """{"user", "items": [{"item", "title", "score", "expert"}, ..], "error"} of each row, in plain Python.

        With `explain` an item has "because", too; "user" is None of a row that is a history, "error" of a fine one.
        """
        return list(self)

    def to_json(self) -> str:
        """`to_dicts` as JSON."""
        return json.dumps(self.to_dicts(), ensure_ascii=False)

    def to_polars(self) -> pl.DataFrame:
        """(row, user, rank, item, title, score, expert) of each listed item, with `explain` also `because`.

        `row` counts from 0, `rank` from 1. A row with an error has none.
        """
        count, k = self.items.shape
        data = {
            "row": np.repeat(np.arange(count, dtype=np.int32), k),
            "user": pl.Series(
                [self.users[n] if self.users else None for n in range(count) for _ in range(k)], dtype=pl.String
            ),
            "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), count),
        }
        named = {"item": self.items, "title": self.titles, "score": self.scores, "expert": self.experts}
        named |= {} if self.because is None else {"because": self.because}
        kinds = {name: pl.Float32 if name == "score" else pl.String for name in named}
        data |= {name: pl.Series(x.reshape(-1).tolist(), dtype=kinds[name]) for name, x in named.items()}
        return pl.DataFrame(data).filter(pl.col("item") != "")
