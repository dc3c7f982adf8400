"""Rows of comma-separated values, for spreadsheets: of postbacks that a search has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks.printable import printable

if TYPE_CHECKING:
    from postbacks.history.query import Postback

#: Columns: the names of ``postbacks list --json``.
COLUMNS: Final = (
    "id", "state", "reason", "account", "group", "origin", "code", "created", "ended", "attempts", "outcome", "status",
    "elapsed_ms", "url",
)  # fmt: skip
#: Begins of cells that a spreadsheet takes for a formula.
_FORMULA: Final = ("=", "+", "-", "@")


def row(postback: Postback) -> list[str]:
    """Return the cells of a postback in the order of ``COLUMNS``; what is empty stays so."""
    fields = postback.to_public_dict()
    return [cell(fields.get(column, "")) for column in COLUMNS]


def cell(value: object) -> str:
    """Return a value as a cell of CSV: printable, and no formula to a spreadsheet."""
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
