"""Words for what a search has found, and for why it has found nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks.accounts.routing import reason_words
from postbacks.transport.outcomes import OUTCOMES

if TYPE_CHECKING:
    from postbacks.history.counting import Exclusion
    from postbacks.history.query import Postback, Query

#: Filters that are named where each of them alone leaves nothing, the nearest miss first.
_EXCLUSIONS: Final = 3


def why(postback: Postback) -> str:
    """Say in words why a postback was not delivered; empty of one that was."""
    if postback.state == "delivered":
        return ""
    if postback.reason and postback.reason not in OUTCOMES:
        return reason_words(postback.reason, postback.origin)
    if postback.outcome == "status":
        return f"answered {postback.status}"
    return OUTCOMES.get(postback.outcome, "")


def why_empty(query: Query) -> str:
    """Say which filter leaves nothing of what the others find.

    Raises:
        HistoryOff, HistoryError: as ``search``.
    """
    from postbacks import history  # noqa: PLC0415 - words alone need no database

    if query.cursor:
        return "There is nothing behind this page."
    exclusions = [exclusion for exclusion in history.why_empty(query) if exclusion.postbacks]
    if not exclusions:
        return "The history has no postback."
    return f"{'; '.join(_exclusion_words(exclusion, query) for exclusion in exclusions[:_EXCLUSIONS])}."


def _exclusion_words(exclusion: Exclusion, query: Query) -> str:
    """Say how many postbacks the other filters find, and which one leaves none: "312 dead of acme, none of N202"."""
    others = phrases(exclusion.others)
    state = others.pop("state", "postback" if exclusion.postbacks == 1 else "postbacks")
    words = " ".join([f"{exclusion.postbacks:,}", state, *others.values()])
    return f"{words}, none {phrases(query)[exclusion.filter]}"


def phrases(query: Query) -> dict[str, str]:
    """Return each filter of a query in words that follow "postbacks"."""
    texts = {
        "state": "{}",
        "account": "of {}",
        "group": "of group {}",
        "origin": "of {}",
        "code": "of {}",
        "reason": "with reason {}",
        "outcome": "with outcome {}",
        "status": "answered {}",
        "host": "to {}",
        "attempts": "with {} attempts",
        "slower_than_ms": "slower than {} ms",
        "tracking_id": "with TRACKINGID {}",
        "mms_id": "with MMSID {}",
        "number": "with number {}",
        "email": "with e-mail address {}",
        "sub_id": "with SUBID {}",
        "serial_number": "with SERIALNUMBER {}",
        "opt_outs": "among opt-outs",
        "undelivered": "undelivered",
    }
    return {
        name: text.format(value)
        for name, text in texts.items()
        if (value := getattr(query, name)) is not None and value is not False
    } | ({"time": "at that time"} if query.since_ms is not None or query.until_ms is not None else {})
