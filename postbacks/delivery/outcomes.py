"""What may come of a POST: the fixed vocabulary, and libcurl's codes in its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pycurl

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one POST.

    Attributes:
        name: a key of ``OUTCOMES``.
        status: HTTP status, where the header of an answer came.
        elapsed_s: from the begin of the POST.
        detail: the outcome in words, without secrets.
        excerpt: first bytes of the answer's body.
        shared: another postback's connection stood for this one.
    """

    name: str
    status: int | None = None
    elapsed_s: float = 0.0
    detail: str = ""
    excerpt: bytes = b""
    shared: bool = False

    @property
    def delivered(self) -> bool:
        """The promise: only status 200 is success."""
        return self.name == "delivered"


def of_status(status: int) -> str:
    """The outcome of a whole header. The promise: 200 alone; not 201, not 204, no redirect."""
    return "delivered" if status == 200 else "status"


#: CURLE code -> outcome and phrase, where libcurl's own words would not tell a customer enough.
#: 8 is CURLE_WEIRD_SERVER_REPLY and 100 CURLE_TOO_LARGE; pycurl has no name for them.
#: ``operation timed out`` (28) is told apart by the transport: it knows whether it was connected.
CURL_CODES: Final[dict[int, tuple[str, str]]] = {
    pycurl.E_UNSUPPORTED_PROTOCOL: ("bad_url", "the URL's scheme is not http or https"),
    pycurl.E_URL_MALFORMAT: ("bad_url", "the URL cannot be read"),
    pycurl.E_COULDNT_RESOLVE_HOST: ("dns", "the host's name could not be resolved"),
    pycurl.E_COULDNT_RESOLVE_PROXY: ("dns", "the proxy's name could not be resolved"),
    pycurl.E_COULDNT_CONNECT: ("refused", "the connection was refused or the host cannot be reached"),
    8: ("broken_answer", "the answer is no HTTP"),
    pycurl.E_PARTIAL_FILE: ("broken_answer", "the answer broke off"),
    pycurl.E_OPERATION_TIMEDOUT: ("connect_timeout", "no connection within the limit"),
    pycurl.E_SSL_CONNECT_ERROR: ("tls", "the TLS connection could not be made"),
    pycurl.E_PEER_FAILED_VERIFICATION: ("tls", "the server's certificate is not trusted"),
    pycurl.E_SSL_PINNEDPUBKEYNOTMATCH: ("tls", "the server's key is not the pinned one"),
    pycurl.E_GOT_NOTHING: ("broken_answer", "the connection was closed without an answer"),
    pycurl.E_SEND_ERROR: ("broken_answer", "the connection broke while the postback was sent"),
    pycurl.E_RECV_ERROR: ("broken_answer", "the connection broke before the answer was whole"),
    pycurl.E_BAD_CONTENT_ENCODING: ("broken_answer", "the answer's encoding cannot be read"),
    pycurl.E_HTTP2: ("broken_answer", "the answer broke the rules of HTTP/2"),
    100: ("too_large", "the answer's header is larger than the limit"),
}
