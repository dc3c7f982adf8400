"""The routing of a postback: one rule for the intake, eager mode and the command line, and its reasons in words."""

from __future__ import annotations

from typing import Final

from postbacks.accounts import NO_URL, ORIGIN_OFF, UNKNOWN_ACCOUNT, UNREADABLE, Account

# Why else the ledger says that a postback is not sent.
EXPIRED: Final = "expired"
#: Written by ``accept.lua``.
BACKLOG_FULL: Final = "backlog_full"
#: Written by ``cancel.lua``; the state says it already.
REVOKED: Final = "revoked"

# Why a postback is parked without an attempt; written by ``postpone.lua``.
ACCOUNT_UNUSABLE: Final = "account_unusable"
BROKER_AWAY: Final = "broker_unreachable"

#: Each reason as a clause, for ``postbacks send``, ``ping`` and ``show`` and for errors.
_WORDS: Final = {
    UNKNOWN_ACCOUNT: "{account} was not known",
    UNREADABLE: "{account} cannot be read until it is set anew",
    ORIGIN_OFF: "{account} has switched off {origin}",
    NO_URL: "{account} has no URL for {origin}",
    EXPIRED: "its time (expires) had passed before it was taken in",
    BACKLOG_FULL: "{account} had too many waiting",
    REVOKED: "",
    ACCOUNT_UNUSABLE: "{account} cannot be used just now (the workers' logs say why)",
    BROKER_AWAY: "the broker was away while {account} was read",
}


def reason_words(reason: str, origin: str, account: str = "its account") -> str:
    """Put a reason into words; one that is no constant of this module is its own words."""
    words = _WORDS.get(reason)
    return reason if words is None else words.format(account=account, origin=origin or "it")


def route(account: Account | None, origin: str, group: str, url: str | None) -> tuple[str | None, str]:
    """Find the URL of an event, or None and the reason why it is skipped.

    A URL that came with the call needs no account; an origin that is off stays off.

    Args:
        account: the account, or None where the store has none of that name.
        origin: the event's origin.
        group: the event's group (catalogue: Groups).
        url: the URL that came with the call, or None.
    """
    if account is None:
        return (url, "") if url is not None else (None, UNKNOWN_ACCOUNT)
    routed, reason = account.route(origin, group)
    if url is not None and reason != ORIGIN_OFF:
        return url, ""
    return routed, reason
