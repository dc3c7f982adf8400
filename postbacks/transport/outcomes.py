"""What may come of a POST: the fixed vocabulary."""

from __future__ import annotations

from typing import Final, NamedTuple

#: Every outcome that an attempt can have. ``unknown`` is written by ``queue/reap.lua`` alone.
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
    """What came of one POST.

    Attributes:
        name: a key of ``OUTCOMES``.
        status: HTTP status, where the header of an answer came.
        elapsed_s: from the begin of the POST.
        detail: the outcome in words, without secrets.
        excerpt: first bytes of the answer's body, as text.
        shared: another postback's connection stood for this one.
    """

    name: str
    status: int | None = None
    elapsed_s: float = 0.0
    detail: str = ""
    excerpt: str = ""
    shared: bool = False

    @property
    def delivered(self) -> bool:
        """The promise: only status 200 is success."""
        return self.name == "delivered"


def classify_status(status: int) -> str:
    """The outcome of a whole header. The promise: 200 alone; not 201, not 204, no redirect."""
    return "delivered" if status == 200 else "status"
