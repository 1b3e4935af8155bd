"""What the paper says beside what was found."""

from collections.abc import Sequence
from typing import NamedTuple

from pad_jax.report.page import Page


class Claim(NamedTuple):
    """A statement of the paper; `agrees` is None where it cannot be tested here."""

    paper: str
    found: str
    agrees: bool | None


def claims_table(page: Page, claims: Sequence[Claim]) -> None:
    """A row per claim; the paper's numbers come from other data and another text encoder, so only signs and orders
    are compared.
    """
    verdict = {True: "agrees", False: "**does not agree**", None: "cannot be tested here"}
    page.table(["paper", "here", ""], [[c.paper, c.found, verdict[c.agrees]] for c in claims], words=True)
