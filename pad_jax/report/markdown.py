"""Text of others in Markdown: names of datasets, folders and items stay names."""

import re
from collections.abc import Iterable

from pad_jax.console import printable


def plain(text: str) -> str:
    """Without markup of HTML, line breaks and what makes a terminal do things."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", printable(text).replace("\n", " "))


def row(cells: Iterable[str]) -> str:
    """A row of a table."""
    return "|" + "|".join(f" {plain(cell)} ".replace("|", "\\|") if cell else " " for cell in cells) + "|"
