"""Diagnosis of a test POST for the receiver's developers: a verdict, what to do, and what else was noticed."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urljoin

from cryptography import x509

from postbacks.guard import setting_of
from postbacks.settings import Settings
from postbacks.transport.probe import Probe
from postbacks.transport.profile import Tls
from postbacks.urls import endpoint_of, redacted

#: Days before a certificate's end from which on it is warned of; most are renewed 30 days before.
WARN_DAYS: Final = 14

#: Status that is no redirect -> what to do about it.
_STATUS_ADVICE: Final = {
    401: "The receiver wants other credentials: has it the account's secret, or must user and password be in the URL?",
    403: "The receiver refuses us: does it allow our address, and are credentials in the URL?",
    404: "The path is not one that the receiver knows: correct the URL.",
    405: "The receiver takes no POST at this path: correct the URL, or let it.",
    410: "The receiver says that this path is gone: correct the URL.",
    411: "The receiver or what stands before it misreads the request: it has a Content-Length.",
    413: "The receiver takes no document of this size: let it.",
    415: "The receiver does not take Content-Type application/xml: let it.",
    429: "The receiver asks for fewer requests: raise its limit for us, or answer 200 and work later.",
}

#: Words of a TLS fault (transport/classify.py) -> what to do about it.
_TLS_ADVICE: Final = (
    ("has expired", "Renew the server's certificate, and reload the server."),
    ("not valid yet", "Look at the server's clock and its certificate."),
    ("for another host", "Give the server a certificate that names this host, or correct the URL."),
    (
        "self-signed",
        "Get a certificate of a public authority, or let the account trust this one: --ca-bundle FILE.",
    ),
    (
        "issuer",
        "Let the server send the intermediate certificates too (fullchain), or let the account trust your own authority: --ca-bundle FILE.",
    ),
    ("TLS is too old", "Switch TLS 1.2 or 1.3 on."),
    ("not the pinned one", "Where the key was changed on purpose, set the new one: --pin sha256//…"),
    ("trust our client certificate", "Let the server trust the authority that has issued it."),
    ("client certificate", "Set one for the account: --client-cert FILE --client-key FILE."),
)

_ADVICE: Final = {
    "dns": "Look for a misspelt host, and whether its name is in the public DNS.",
    "refused": "Nothing listens there, or a firewall refuses us: start the receiver, open the port, correct the URL.",
    "connect_timeout": "A firewall may drop our packets, or the host is down.",
    "answer_timeout": "Answer 200 first, as soon as the postback is stored, and work afterwards.",
    "broken_answer": "What listens there speaks no HTTP, or broke off: look at its log, and at http or https in the URL.",
    "too_large": "Answer with fewer or smaller headers and cookies.",
    "bad_url": "Correct the URL.",
}
#: Setting by which the guard refuses (guard.py) -> what to do about it.
_BLOCKED_ADVICE: Final = {
    "POSTBACKS_ALLOWED_NETWORKS": "Use a public address. For a receiver of your own network see POSTBACKS_ALLOWED_NETWORKS.",
    "POSTBACKS_DENIED_NETWORKS": "Use another address: POSTBACKS_DENIED_NETWORKS closes this one.",
    "POSTBACKS_ALLOWED_PORTS": "Use a usual port. For another one see POSTBACKS_ALLOWED_PORTS.",
    "POSTBACKS_HTTPS_ONLY": "Use https. To send in the clear see POSTBACKS_HTTPS_ONLY.",
}
#: Words of a header that cannot be read (transport/classify.py) -> what to do about it.
_HEADER_ADVICE: Final = (
    (
        "Content-Length",
        "Correct that line: each worker's first postback there fails, and is sent again; later ones count as answered.",
    ),
    ("answer's header", "Correct that line of the answer's header: no answer with it ever counts."),
)
#: Words of a handshake that a server ended as it does not trust the client's certificate (transport/classify.py).
_REFUSED_HANDSHAKE: Final = ("client certificate", "TLS handshake", "connection could not be made")
#: Statuses of servers that finish the handshake and refuse the certificate in HTTP, as nginx does.
_REFUSED_STATUSES: Final = frozenset({400, 401, 403, 495})
#: What to do where the connection stands and TLS does not.
_SILENT_TLS: Final = "Something listens there and says nothing: does it speak TLS, or is the URL http://?"


@dataclass(frozen=True, slots=True)
class Advice:
    """Verdict in plain words, what to do about it (may be empty), and what else was noticed."""

    verdict: str
    todo: str
    noticed: tuple[str, ...]


def diagnose(probe: Probe, settings: Settings) -> Advice:
    """Return what would have become of a postback, why, and what to do."""
    noticed = tuple(_noticed(probe, settings))
    if probe.outcome.delivered:
        return Advice("answered 200: this postback would count as delivered", "", noticed)
    verdict, todo = _failure(probe)
    todo = " ".join(filter(None, (todo, _client_chain_advice(probe, verdict))))
    return Advice(f"{verdict}; {_consequence(settings)}", todo, noticed)


def advise(outcome: str, status: int, phrase: str) -> str:
    """Return what to do about an attempt that failed, by its outcome alone; empty where that says too little.

    Args:
        outcome: name of the outcome.
        status: status of the answer; 0 where none came.
        phrase: the outcome in words, without libcurl's own behind it.
    """
    if outcome == "status":
        return _advise_status(status)
    if outcome == "blocked":
        return _BLOCKED_ADVICE[setting_of(phrase)]
    if outcome == "tls":
        return next((advice for mark, advice in _TLS_ADVICE if mark in phrase), "Look at the server's log.")
    if outcome == "broken_answer":
        return next((advice for mark, advice in _HEADER_ADVICE if mark in phrase), _ADVICE[outcome])
    return _ADVICE.get(outcome, "")


def location(probe: Probe) -> str:
    """Return the target of a redirect, as a listing shows it; empty where there is none."""
    target = probe.headers.get("location", "")
    if probe.status is None or not 300 <= probe.status < 400 or not target:
        return ""
    try:
        return redacted(urljoin(probe.url, target))[:300]
    except ValueError:
        return "(unreadable URL)"


def days_left(probe: Probe, now: datetime | None = None) -> int | None:
    """Return the whole days until the server's certificate ends."""
    if probe.certificate is None:
        return None
    return math.floor((probe.certificate.ends - (now or datetime.now(UTC))).total_seconds() / 86_400)


def _failure(probe: Probe) -> tuple[str, str]:
    name, limits = probe.outcome.name, probe.limits
    if name == "status":
        return _status(probe)
    if name == "answer_timeout":
        limit = f"the limit is {limits.answer_timeout_s:g} s"
        if probe.answer_s is not None:
            return f"answered {probe.status} after {probe.answer_s:.1f} s: {limit}", _ADVICE[name]
        return f"no answer within {probe.relaxed_limits.answer_timeout_s:g} s: {limit}", _ADVICE[name]
    if name == "connect_timeout":
        limit = f"the limit is {limits.connect_timeout_s:g} s"
        if probe.connecting_s is not None:
            return f"connected after {probe.connecting_s:.1f} s: {limit}", _ADVICE[name]
        if probe.resolved_s is None:
            return f"no answer of DNS within {probe.relaxed_limits.connect_timeout_s:g} s: {limit}", _ADVICE[
                "dns"
            ]
        if probe.connected_s is not None:
            return f"no TLS within {probe.relaxed_limits.connect_timeout_s:g} s: {limit}", _SILENT_TLS
        return f"no connection within {probe.relaxed_limits.connect_timeout_s:g} s: {limit}", _ADVICE[name]
    detail = probe.outcome.detail
    if name == "blocked":
        return detail, advise(name, 0, detail)
    phrase = detail.partition(" (")[0]  # libcurl's own words follow in brackets
    todo = advise(name, 0, phrase)
    wants_certificate = probe.secured_s and not (limits.tls and limits.tls.client_cert)
    if todo == _ADVICE["broken_answer"] and wants_certificate:
        todo = f"{todo} It may want a client certificate: --client-cert FILE --client-key FILE."
    return phrase, todo


def _client_chain_advice(probe: Probe, verdict: str) -> str:
    """Return advice on a missing intermediate certificate wherever that can be the cause; else an empty text.

    With TLS 1.3 our handshake is over before the server has seen our certificate: its alert then comes in place of the
    answer, or is lost when the server resets the connection.
    """
    tls, name = probe.limits.tls, probe.outcome.name
    if tls is None or not tls.client_cert:
        return ""
    # An error on our own side, say that the server's certificate is not trusted, has other words.
    refused = (
        (name == "tls" and any(mark in verdict for mark in _REFUSED_HANDSHAKE))
        or (name == "broken_answer" and probe.secured_s is not None and probe.status is None)
        or (name == "status" and probe.status in _REFUSED_STATUSES)
    )
    issuer = _missing_issuer(tls) if refused else ""
    if not issuer:
        return ""
    return (
        f"Our client certificate is sent without that of its issuer ({issuer}), and the server may not know it: "
        "put the intermediate certificates behind it, into the file of --client-cert."
    )


def _missing_issuer(tls: Tls) -> str:
    """Return the issuer of our client certificate if the issuer's own certificate is not sent along.

    OpenSSL sends along what stands in the account's bundle, too.
    """
    try:
        first, *rest = x509.load_pem_x509_certificates((tls.client_cert or "").encode())
        bundled = x509.load_pem_x509_certificates(tls.ca_bundle.encode()) if tls.ca_bundle else []
    except ValueError:
        return ""
    subjects = {certificate.subject for certificate in (first, *rest, *bundled)}
    return "" if first.issuer in subjects else first.issuer.rfc4514_string()


def _status(probe: Probe) -> tuple[str, str]:
    status = probe.status or 0
    target = location(probe)
    if target:
        return (
            f"answered {status}, redirects to {target}: set that URL instead",
            "No redirect is ever followed.",
        )
    return f"answered {status}: only 200 counts", _advise_status(status)


def _advise_status(status: int) -> str:
    if 200 <= status < 300:
        return "Answer 200, also where there is nothing to say."
    if 300 <= status < 400:
        return "No redirect is ever followed: set the URL that it redirects to."
    if status in _STATUS_ADVICE:
        return _STATUS_ADVICE[status]
    return "The receiver failed: look at its log." if status >= 500 else "Look at the receiver's log."


def _consequence(settings: Settings) -> str:
    times = settings.max_resends
    if not times:
        return "this postback would be dead at once"
    return f"this postback would be sent again {'once' if times == 1 else f'{times} times'}"


def _noticed(probe: Probe, settings: Settings) -> list[str]:
    words: list[str] = []
    days = days_left(probe)
    if days is not None and 0 <= days < WARN_DAYS:
        words.append(f"the certificate ends {_in_days(days)}: renew it")
    if probe.closes:
        saved_s = (probe.secured_s or probe.connected_s or 0.0) - (probe.resolved_s or 0.0)
        words.append(
            f"answered {probe.status} but the connection is closed after each postback: "
            f"keep-alive would save {_ms(saved_s)}"
        )
    limit_s = probe.limits.answer_timeout_s
    if probe.answer_s is not None and probe.answer_s < limit_s:
        if probe.answer_s > limit_s / 2:
            words.append(f"the answer took {probe.answer_s:.1f} s of the {limit_s:g} s that it may take")
        elif probe.answer_s > settings.slow_after_s:
            words.append(
                f"the answer took {probe.answer_s:.1f} s: an account slower than {settings.slow_after_s:g} s "
                "shares its room with failing ones"
            )
    if probe.status == 200 and probe.raw_outcome.detail:
        words.append(probe.raw_outcome.detail)
    if endpoint_of(probe.url).startswith("http://") and _is_public(probe.address) and not settings.proxy_url:
        words.append("the URL is http: whoever is on the way can read the postbacks, and change them")
    return words


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_global
    except ValueError:
        return False


def _in_days(days: int) -> str:
    if days < 1:
        return "within a day"
    return f"in {days} day{'' if days == 1 else 's'}"


def _ms(length_s: float) -> str:
    return f"{length_s * 1000:.0f} ms" if length_s >= 0.001 else "under 1 ms"
