"""The routing of a postback: one rule for the intake, eager mode and the command line, and its reasons in words."""

from __future__ import annotations

from typing import Final

from postbacks.accounts import NO_URL, ORIGIN_OFF, UNKNOWN_ACCOUNT, UNREADABLE, Account

# Reasons in the ledger for which else a postback is not sent; each with the script that writes it.
EXPIRED: Final = "expired"
#: ``accept.lua``
BACKLOG_FULL: Final = "backlog_full"
#: ``retire.lua``
ACCOUNT_REMOVED: Final = "account_removed"
#: ``accept.lua``
ID_TAKEN: Final = "id_taken"
#: ``reap.lua``
POISON: Final = "poison"
#: ``cancel.lua``
REVOKED: Final = "revoked"

#: ``erase.lua``, in the place of words that may have quoted a person
FORGOTTEN: Final = "forgotten"

# Reasons for which a postback is parked without an attempt; ``postpone.lua`` writes them.
ACCOUNT_UNUSABLE: Final = "account_unusable"
ACCOUNT_CHANGED: Final = "account_changed"
BROKER_AWAY: Final = "broker_unreachable"
WORKER_STOPPED: Final = "worker_stopped"

#: Words about a stub, which nobody can send again but its application.
STUB_WORDS: Final = "its account had too many waiting and dead, and its document was not kept; the application must send it again"

#: Each reason as a clause, for ``postbacks send``, ``ping`` and ``show`` and for errors.
_WORDS: Final = {
    UNKNOWN_ACCOUNT: "{account} was not known",
    UNREADABLE: "{account} cannot be read until it is set anew",
    ORIGIN_OFF: "{account} has switched off {origin}",
    NO_URL: "{account} has no URL for {origin}",
    EXPIRED: "its time (expires) had passed before it was taken in",
    BACKLOG_FULL: "{account} had too many waiting",
    ACCOUNT_REMOVED: "{account} was removed, and what waited for it was kept for as long as it may be",
    ID_TAKEN: "another postback has the id that it came with",
    POISON: "it was alone in flight each time that its process died",
    FORGOTTEN: "the words of the reason were forgotten with its document",
    REVOKED: "",  # the state, cancelled, says it already
    ACCOUNT_CHANGED: "{account} has changed meanwhile, or cannot be used just now",
    ACCOUNT_UNUSABLE: "{account} cannot be used just now (the workers' logs say why)",
    BROKER_AWAY: "the broker was away while {account} was read",
    WORKER_STOPPED: "its worker ended before the POST began",
}


def reason_words(reason: str, origin: str, account: str = "its account") -> str:
    """Put a reason into words; return one that is not in the table as it is: it is in words already."""
    words = _WORDS.get(reason)
    return reason if words is None else words.format(account=account, origin=origin or "it")


def end_of(reason: str) -> str:
    """Return what becomes of a postback without a URL, by the reason: ``skipped``, ``waiting`` or ``dead``.

    A postback of an account that cannot be read waits: the account stands still until it can, and has a URL then.
    """
    return {ORIGIN_OFF: "skipped", UNREADABLE: "waiting"}.get(reason, "dead")


def end_words(reason: str) -> str:
    """Put into words what becomes of postbacks without a URL, for the command line."""
    words = {"skipped": "skipped", "waiting": "kept until then"}
    return words.get(end_of(reason), "dead until they are sent again")


def route(account: Account | None, origin: str, group: str, url: str | None) -> tuple[str | None, str]:
    """Find the URL of an event, or None and the reason why it is not sent.

    A URL that came with the call needs no account. An origin that is switched off stays off, even with such a URL.

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
