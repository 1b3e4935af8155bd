"""What the paper says beside what was found."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pad_jax.report.page import Page


class Claim(NamedTuple):
    """A statement of the paper, what was found, and whether that agrees.

    A `found` with a `nan` in it, for a group or bucket without users or pairs, can be no test.
    """

    paper: str
    found: str
    agrees: bool


def claims_table(page: Page, claims: Sequence[Claim]) -> None:
    """A row per claim; the paper's numbers come from other data and another text encoder, so only signs and orders
    are compared.
    """
    rows = []
    for claim in claims:
        found = re.sub(r"[+-]?\bnan\b", "-", claim.found)
        verdict = "agrees" if claim.agrees else "**does not agree**"
        rows.append([claim.paper, found, verdict if found == claim.found else "cannot be tested here"])
    page.table(["paper", "here", ""], rows, words=True)
