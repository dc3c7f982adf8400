"""Reveal of what is personal: with a reason, and written to the journal before anybody sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postbacks.errors import RevealRefused
from postbacks.operate import journal

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_reveal(reveal: str | None) -> None:
    """Refuse to reveal without a reason; None does not reveal.

    Raises:
        RevealRefused: the reason is empty.
    """
    if reveal is not None and not reveal.strip():
        raise RevealRefused(
            "To reveal wants a reason, such as the number of a ticket: it is written to the journal."
        )


def write_reveal(
    subject: str, reveal: str, by: str | None = None, *, details: Mapping[str, Any] | None = None
) -> None:
    """Write to the journal that something was found and is shown unmasked.

    Args:
        subject: what is revealed: an id, a TRACKINGID, an MMSID; ``list`` for the persons of one.
        reveal: the reason.
        by: who asks; None for the user of this process.
        details: what the list was asked for.
    """
    journal.write("reveal", subject, why=reveal.strip(), details=details, by=by)
