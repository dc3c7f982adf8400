"""Successors of events: which code is awaited after which, and how soon (catalogue: Successors)."""

from __future__ import annotations

from typing import Final, NamedTuple


class Successors(NamedTuple):
    """Codes that are awaited after an event, all of its origin.

    Attributes:
        name: noun for them.
        codes: any of them will do.
        within_s: seconds after which it is worth a question that none has come.
    """

    name: str
    codes: tuple[str, ...]
    within_s: int


_HOUR_S: Final = 3600

#: Origin and code of an event -> what is awaited after it. After any other event nothing is.
SUCCESSORS: Final = {
    ("SMS_MT", "N201"): Successors("receipt", ("N202", "E202"), 2 * _HOUR_S),
    ("MMS_MT", "N101"): Successors("receipt", ("N102", "E102", "N202", "E202", "E101"), 24 * _HOUR_S),
    ("MMS_MT", "N501"): Successors("receipt", ("N502", "E502", "E501"), 24 * _HOUR_S),
    ("MMS_MT", "N013"): Successors("submission", ("N101", "E101"), _HOUR_S),
}
