"""Outcomes of a POST: the fixed vocabulary. It stands apart from libcurl, for programs that only read the ledger."""

from __future__ import annotations

from typing import Final, NamedTuple

from postbacks.ledger.phases import Phases

#: Outcomes that an attempt can have, in words. ``unknown`` is written by ``queue/reap.lua`` alone.
OUTCOMES: Final = {
    "delivered": "the answer was 200",
    "status": "the answer was another status than 200",
    "connect_timeout": "no connection within the limit",
    "answer_timeout": "no whole header of an answer within the limit",
    "refused": "the connection was refused or could not be made",
    "dns": "the host's name has no address",
    "tls": "the TLS connection could not be made or trusted",
    "blocked": "the address is not one that postbacks may reach",
    "broken_answer": "what came was no whole HTTP answer",
    "too_large": "the answer's header is larger than the limit",
    "bad_url": "the URL cannot be sent to",
    "unknown": "the worker died or lost its lease before the answer was noted",
}


class Outcome(NamedTuple):
    """Outcome of one POST.

    Attributes:
        name: a key of ``OUTCOMES``.
        status: HTTP status, where the header of an answer came.
        elapsed_s: time from the begin of the POST.
        detail: the outcome in words, without secrets.
        excerpt: first bytes of the answer's body, as text.
        shared: True if another postback's connection stood for this one.
        phases: of the POST; None where nothing was tried.
        address: address that it went to; empty where phases are None, and through a proxy.
    """

    name: str
    status: int | None = None
    elapsed_s: float = 0.0
    detail: str = ""
    excerpt: str = ""
    shared: bool = False
    phases: Phases | None = None
    address: str = ""

    @property
    def delivered(self) -> bool:
        """True for status 200 alone: the promise."""
        return self.name == "delivered"


def classify_status(status: int) -> str:
    """Return the outcome of an answer with this status. The promise: 200 alone; not 201, not 204, no redirect."""
    return "delivered" if status == 200 else "status"
