"""Sentences for a customer's developer: what became of a postback, why it waits, what to do. They name nothing of our inside."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from postbacks.accounts import NO_URL, ORIGIN_OFF, UNKNOWN_ACCOUNT, UNREADABLE, routing
from postbacks.ledger import states
from postbacks.ping.diagnose import advise
from postbacks.transport.outcomes import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from postbacks.ledger.record import Attempt, Record
    from postbacks.monitor.causes import Cause
    from postbacks.web.customers.veil import Veil

#: State -> what a customer calls it.
STATES: Final = {
    states.WAITING: "waits",
    states.HELD: "waits",
    states.SENDING: "being sent",
    states.PARKED: "will be sent again",
    states.DELIVERED: "delivered",
    states.DEAD: "given up",
    states.SKIPPED: "not sent",
    states.CANCELLED: "cancelled",
    "forgotten": "end not known",
}
#: Group of events -> its name in docs/receiving.md.
GROUPS: Final = {"general": "general events", "mo": "messages to you", "mt": "receipts", "pass": "passes"}
#: Field of an account -> the events that go to that URL.
URLS: Final = {"url": "postbacks", "mo_url": "messages to you", "pass_url": "passes"}

#: Outcome of a POST -> what the receiver's developer reads.
_OUTCOMES: Final = {
    "delivered": "your server answered 200",
    "status": "your server answered {status}; only 200 counts",
    "connect_timeout": "no connection to your server within the limit",
    "answer_timeout": "no answer of your server within the limit",
    "refused": "your server refused the connection, or none could be made",
    "dns": "the name of your server has no address",
    "tls": "the TLS connection to your server could not be made or trusted",
    "blocked": "your URL leads to an address or a port that we do not send to",
    "broken_answer": "what came from your server was no whole HTTP answer",
    "too_large": "the header of your server's answer is too large",
    "bad_url": "your URL cannot be sent to",
    "unknown": "we do not know whether your server got it",
}
#: Reason for which one was not sent -> why.
_REASONS: Final = {
    UNKNOWN_ACCOUNT: "you had no URL for {origin} at that time",
    NO_URL: "you had no URL for {origin} at that time",
    UNREADABLE: "your account could not be used at that time",
    ORIGIN_OFF: "{origin} is switched off for you",
    routing.EXPIRED: "its time had passed before it could be sent",
    routing.BACKLOG_FULL: "too many of your postbacks waited",
    routing.ACCOUNT_REMOVED: "your account was removed",
    routing.ID_TAKEN: "another postback has its id",
    routing.POISON: "we could not send it",
    routing.REVOKED: "",
    routing.FORGOTTEN: "its document was erased on request",
}
_OTHER_REASON: Final = "it could not be made into a postback"

#: Cause -> why one has not been sent. What is not named here is ours to mend, or passes in a moment.
_OURS: Final = "We have not come to it yet; nothing at your end keeps it."
_CAUSES: Final = {
    "behind": "{ahead} of your postbacks go before it.",
    "account_paused": "Sending to you is paused since {since}{until}. What comes meanwhile waits, and is sent afterwards.",
    "account_still": "We cannot send to you at present: ask whoever gave you the link.",
    "rate": "We send you at most {rate}, as was agreed: the next POST may begin at {at}.",
    "account_limit": "You have {open} POSTs open, of at most {limit}: it goes out when one of them is answered.",
    "endpoint_limit": "As many POSTs to your server are open as we make at a time: it goes out when one of them is answered.",
    "slow_start": "Your server took no connection, last at {since}: we begin again with few POSTs at a time.",
    "probe": "Your server has failed since {since}: one POST at a time goes out, until one is answered with 200.",
    "lane_limit": "As many POSTs to you are open as your server has shown that it can take; each 200 allows one more.",
    "priority": "{count} of your more urgent postbacks go before it.",
    "countdown": "It is to be sent at {at}, as was asked for.",
    "resend": "POST {failed} failed; POST {attempt} of {of} follows at {at}.",
    "put_off": "It is put off until {at}.",
    "open": "POST {attempt} is under way since {since}.",
    "revoked": "It is to be cancelled.",
}  # fmt: skip
_TIMES: Final = frozenset({"since", "at", "until"})

#: Advice for whoever runs postbacks -> the same for the developer of the receiver.
_ADVICE: Final = (
    ("or let the account trust this one: --ca-bundle FILE.", "or send us this one."),
    ("or let the account trust your own authority: --ca-bundle FILE.", "or send us the certificate of your own authority."),
    ("Where the key was changed on purpose, set the new one: --pin sha256//…", "Where the key was changed on purpose, tell us the new one."),
    ("Set one for the account: --client-cert FILE --client-key FILE.", "Ask us for one."),
    ("It may want a client certificate: --client-cert FILE --client-key FILE.", "It may want a client certificate: ask us for one."),
    ("put the intermediate certificates behind it, into the file of --client-cert.", "ask us to send the intermediate certificates along."),
    ("For a receiver of your own network see POSTBACKS_ALLOWED_NETWORKS.", ""),
    ("Use another address: POSTBACKS_DENIED_NETWORKS closes this one.", "Use another address."),
    ("For another one see POSTBACKS_ALLOWED_PORTS.", ""),
    ("To send in the clear see POSTBACKS_HTTPS_ONLY.", ""),
    ("has it the account's secret, or must user and password be in the URL?", "has it the secret that we sign with, or must we send a user and a password?"),
    ("this postback would be dead at once", "a postback would be given up at once"),
    ("this postback", "a postback"),
    ("an account slower than", "a server slower than"),
    ("shares its room with failing ones", "is sent fewer at a time"),
)  # fmt: skip
#: Words of our inside, which are no customer's.
_INSIDE: Final = re.compile(
    r"POSTBACKS_|(?<!\w)--\w|\b(?:worker|lease|broker|lane|ledger|tick|recorder|redis|quarantine|parked)s?\b",
    re.IGNORECASE | re.ASCII,
)


def state_words(state: str) -> str:
    """Return a state as a customer calls it."""
    return STATES.get(state, "under way")


def outcome_words(outcome: str, status: int | None) -> str:
    """Say what came of a POST."""
    return _OUTCOMES.get(outcome, "it was not delivered").format(status=status)


def why(state: str, reason: str, origin: str, outcome: str, status: int | None) -> str:
    """Say why a postback was not delivered, or not yet; empty where there is no more to say.

    Args:
        state: of the ledger.
        reason: of the ledger, or the outcome that ended it; may be empty.
        origin: of the event.
        outcome: of the latest POST; empty for none.
        status: of its answer.
    """
    if state == states.DELIVERED:
        return ""
    if reason and reason not in OUTCOMES:
        return _REASONS.get(reason, _OTHER_REASON).format(origin=origin or "it")
    return outcome_words(outcome, status) if outcome else ""


def why_record(record: Record) -> str:
    """Say why a postback was not delivered; empty of one that was, or that has not ended."""
    if record.state not in states.FINAL_STATES:
        return ""
    if record.is_stub:
        return "its document was not kept"
    last = record.attempts[-1] if record.attempts else None
    outcome, status = (last.outcome, last.status) if last else ("", None)
    return why(record.state, "" if record.ended_by_attempt else record.reason, record.origin, outcome, status)


def detail_words(attempt: Attempt, veil: Veil) -> str:
    """Say what is known of a failed POST beside its outcome; empty where that is ours alone."""
    return "" if attempt.outcome == "status" or _INSIDE.search(attempt.detail) else veil.text(attempt.detail)


def cause_words(causes: Iterable[Cause], clock: Callable[[str], str]) -> list[str]:
    """Say why a postback has not been sent, the most decisive first.

    Args:
        causes: of ``monitor/causes.py``.
        clock: puts a time, as ISO 8601, into words.
    """
    return list(dict.fromkeys(_cause(cause.name, cause.figures, clock) for cause in causes)) or [_OURS]


def _cause(name: str, figures: Mapping[str, Any], clock: Callable[[str], str]) -> str:
    shown = {key: value for key, value in figures.items() if key not in _TIMES}
    shown |= {key: clock(figures[key]) if figures.get(key) else "a time that is not known" for key in _TIMES}
    shown["until"] = f", until {shown['until']}" if figures.get("until") else ""
    return _CAUSES.get(name, _OURS).format(**shown)


def advice_of(outcome: str, status: int | None) -> str:
    """Say what to do about a POST that failed, by its outcome; empty where that says too little."""
    if outcome in {"blocked", "unknown", "delivered"}:
        return "Use a public address and a usual port." if outcome == "blocked" else ""
    return for_developer(advise(outcome, status or 0, ""))


def for_developer(advice: str) -> str:
    """Return advice for whoever runs postbacks as the receiver's developer needs it."""
    for ours, theirs in _ADVICE:
        advice = advice.replace(ours, theirs)
    return "Ask whoever gave you the link." if _INSIDE.search(advice) else advice.strip()
