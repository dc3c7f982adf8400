"""Classification of ended transfers: libcurl's codes in the words of the ledger."""

from __future__ import annotations

import time
from typing import Final

import pycurl

from postbacks.transport.acks import Ending
from postbacks.transport.answer import excerpt_of
from postbacks.transport.outcomes import Outcome, classify_status
from postbacks.transport.transfer import MAX_HEADER_BYTES, Transfer

#: CURLE_WEIRD_SERVER_REPLY, for which pycurl has no name.
WEIRD_ANSWER: Final = 8

#: CURLE code -> outcome and phrase, where libcurl's own words would not tell a customer enough.
#: 100 is CURLE_TOO_LARGE; pycurl has no name for it.
#: ``operation timed out`` (28) is told apart by whether the transfer was connected.
CURL_CODES: Final[dict[int, tuple[str, str]]] = {
    pycurl.E_UNSUPPORTED_PROTOCOL: ("bad_url", "the URL's scheme is not http or https"),
    pycurl.E_URL_MALFORMAT: ("bad_url", "the URL cannot be read"),
    pycurl.E_COULDNT_RESOLVE_HOST: ("dns", "the host's name could not be resolved"),
    pycurl.E_COULDNT_RESOLVE_PROXY: ("dns", "the proxy's name could not be resolved"),
    pycurl.E_COULDNT_CONNECT: ("refused", "the connection was refused or the host cannot be reached"),
    WEIRD_ANSWER: ("broken_answer", "the answer is no HTTP"),
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

#: The same for codes that only our callbacks and the account's own TLS settings cause.
_OWN_CODES: Final[dict[int, tuple[str, str]]] = {
    0: ("broken_answer", "the answer broke off before its header was whole"),
    pycurl.E_WRITE_ERROR: ("broken_answer", "the answer is no HTTP"),
    pycurl.E_BAD_FUNCTION_ARGUMENT: ("tls", "the account's client certificate or its key cannot be used"),
    pycurl.E_SSL_CERTPROBLEM: ("tls", "the account's client certificate or its key cannot be used"),
    pycurl.E_SSL_CACERT_BADFILE: ("tls", "the account's CA bundle cannot be used"),
}

#: libcurl's words on a line of an answer's header -> the same for a customer's developer.
_HEADER_PHRASES: Final = (
    ("Content-Length", "the answer's Content-Length is no number"),
    ("without colon", "a line in the answer's header has no colon"),
    ("NUL byte", "a line in the answer's header holds a NUL byte"),
    ("Carriage return", "a line in the answer's header holds a carriage return"),
)

#: End of the kept connection that a request had left by -> the same in words.
_ENDINGS: Final = {
    Ending.CLOSED: "the kept connection was closed without an answer",
    Ending.RESET: "the kept connection was reset without an answer",
}

#: OpenSSL's words on a certificate or handshake -> the same for a customer's developer.
_TLS_PHRASES: Final = (
    ("certificate has expired", "the server's certificate has expired"),
    ("certificate is not yet valid", "the server's certificate is not valid yet"),
    ("no alternative certificate subject name", "the server's certificate is for another host"),
    ("does not match target host", "the server's certificate is for another host"),
    ("self-signed certificate", "the server's certificate is self-signed: its issuer is not known"),
    ("self signed certificate", "the server's certificate is self-signed: its issuer is not known"),
    ("unable to get local issuer", "the issuer of the server's certificate is not known"),
    ("unsupported protocol", "the server's TLS is too old: 1.2 is the least"),
    ("protocol version", "the server's TLS is too old: 1.2 is the least"),
    ("certificate required", "the server wants a client certificate"),
    ("handshake failure", "the server refused the TLS handshake; it may want a client certificate"),
    ("unknown ca", "the server does not trust our client certificate"),
)

#: OpenSSL's word for the message by which the other side ends a handshake, and libcurl's for a proxy's refusal.
_ALERT: Final = " alert "
_TUNNEL: Final = "CONNECT tunnel failed"


def classify(transfer: Transfer, code: int, message: str) -> Outcome:
    """Return the outcome of a transfer that has ended.

    Once the header has come whole, its status alone decides, whatever the body did afterwards.

    Args:
        transfer: the transfer.
        code: libcurl's code (CURLE), 0 for none.
        message: libcurl's own words.
    """
    elapsed_s = time.monotonic() - transfer.started_s
    if transfer.header_s is not None and transfer.status is not None:
        return _answered(transfer, transfer.status, code, elapsed_s)
    if transfer.blocked is not None and transfer.connected_s is None:
        return Outcome("blocked", None, elapsed_s, f"not allowed: {transfer.blocked}")
    limits = transfer.profile
    if code == pycurl.E_OPERATION_TIMEDOUT and transfer.connected_s is None:
        detail = f"no connection within {limits.connect_timeout_s:g} s"
        return Outcome("connect_timeout", None, elapsed_s, detail)
    if code == pycurl.E_OPERATION_TIMEDOUT:
        detail = f"no whole header of an answer within {limits.answer_timeout_s:g} s"
        return Outcome("answer_timeout", None, elapsed_s, detail)
    if transfer.header_bytes > MAX_HEADER_BYTES:
        return Outcome("too_large", None, elapsed_s, f"the answer's header is over {MAX_HEADER_BYTES} bytes")
    if code == pycurl.E_UNSUPPORTED_PROTOCOL and transfer.connected_s is not None:
        # libcurl took the answer for HTTP/0.9
        return Outcome("broken_answer", None, elapsed_s, "the answer is no HTTP")
    if transfer.stale:
        return Outcome("broken_answer", None, elapsed_s, "an answer came before the postback was sent")
    if transfer.ending in _ENDINGS:
        return Outcome("broken_answer", None, elapsed_s, _ENDINGS[transfer.ending])
    unknown = ("broken_answer", f"libcurl's error {code}")
    name, phrase = CURL_CODES.get(code) or _OWN_CODES.get(code, unknown)
    if code in {0, pycurl.E_WRITE_ERROR, pycurl.E_COULDNT_RESOLVE_PROXY}:
        message = ""  # libcurl would speak of our callback, or quote the proxy's URL
    if _ALERT in message:
        name = "tls"  # with TLS 1.3 the alert comes when the server reads, after our side of the handshake has succeeded
    elif _TUNNEL in message:
        name, phrase = "refused", "the proxy did not make the connection"
    if code == WEIRD_ANSWER and transfer.status is not None:
        unread = "the answer's header cannot be read"
        phrase = next((plain for mark, plain in _HEADER_PHRASES if mark in message), unread)
    if name == "tls":
        phrase = next((plain for mark, plain in _TLS_PHRASES if mark in message.lower()), phrase)
    return Outcome(name, None, elapsed_s, f"{phrase} ({message[:160]})" if message else phrase)


def _answered(transfer: Transfer, status: int, code: int, elapsed_s: float) -> Outcome:
    name = classify_status(status)
    if name == "delivered" and not code:
        return Outcome(name, status, elapsed_s)
    words = [] if name == "delivered" else [f"answered {status}; only 200 counts"]
    if not transfer.framed:
        words.append("its header gives its body no clear end, so the connection is not used again")
    elif code:
        words.append("its body was not read to the end")
    excerpt = ""
    if name != "delivered":
        excerpt, fault = excerpt_of(transfer.header_lines, transfer.excerpt, transfer.excerpt_bytes)
        words += [fault] if fault else []
    return Outcome(name, status, elapsed_s, "; ".join(words), excerpt)
