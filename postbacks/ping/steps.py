"""Steps of a test POST, from the name's look-up to the answer, in words."""

from __future__ import annotations

from http.client import responses as reasons
from typing import TYPE_CHECKING, NamedTuple

from postbacks.ping.diagnose import days_left, location
from postbacks.settings import load
from postbacks.urls import endpoint_of, read_url

if TYPE_CHECKING:
    from postbacks.transport.probe import Probe


class Step(NamedTuple):
    """A step of the POST, as it is shown.

    Attributes:
        name: ``DNS``, ``TCP``, ``TLS``, ``request`` or ``answer``.
        reached: True if the POST came to its end.
        right: True if it was in order.
        took_s: seconds that it took.
        words: what came of it.
    """

    name: str
    reached: bool
    right: bool
    took_s: float
    words: str


def steps_of(probe: Probe) -> list[Step]:
    """Return the steps that the POST came to; where it failed, one of them is not right."""
    moments = [
        ("DNS", probe.resolved_s, _name_words(probe)),
        ("TCP", probe.connected_s, f"connected to {probe.address}"),
        *(
            [("TLS", probe.secured_s, _tls_words(probe))]
            if endpoint_of(probe.url).startswith("https://")
            else []
        ),
        ("request", probe.sent_s if probe.connecting_s is not None else None, "sent"),
        ("answer", probe.header_s, _answer_words(probe)),
    ]
    steps: list[Step] = []
    before_s = 0.0
    for name, at_s, words in moments:
        if at_s is None:
            took_s = max(0.0, probe.total_s - before_s)
            steps.append(Step(name, False, False, took_s, _fault_words(name, probe)))
            return steps
        steps.append(Step(name, True, True, max(0.0, at_s - before_s), words))
        before_s = at_s
    if not probe.outcome.delivered:
        # A connection that came too late, and not never: the slowest step is to blame.
        is_late = probe.outcome.name == "connect_timeout"
        at = (
            max(range(len(steps) - 2), key=lambda number: steps[number].took_s) if is_late else len(steps) - 1
        )
        steps[at] = steps[at]._replace(right=False)
    return steps


def _fault_words(name: str, probe: Probe) -> str:
    detail = probe.outcome.detail or probe.outcome.name
    if name == "TLS" and probe.certificate is not None:
        return f"{detail.partition(' (')[0]}: {_certificate_words(probe)}"
    return detail


def _name_words(probe: Probe) -> str:
    host = read_url(probe.url).host
    address = probe.address.rpartition(":")[0].strip("[]")
    if load().proxy_url:
        return "of the proxy, through which all goes"
    return host if address in {"", host} else f"{host} is {address}"


def _tls_words(probe: Probe) -> str:
    return ", ".join(filter(None, (probe.tls_version, _certificate_words(probe))))


def _certificate_words(probe: Probe) -> str:
    certificate, days = probe.certificate, days_left(probe)
    if certificate is None or days is None:
        return ""
    names = ", ".join(certificate.names[:3]) or "no name"
    more = len(certificate.names) - 3
    left = f"{days} days left" if days >= 0 else f"ended on {certificate.ends:%Y-%m-%d}"
    return f"certificate for {names}{f' and {more} more' if more > 0 else ''} by {certificate.issuer}, {left}"


def _answer_words(probe: Probe) -> str:
    if probe.status is None:
        return ""
    target = location(probe)
    words = f"{probe.status} {reasons.get(probe.status, '')}".strip() + (f" to {target}" if target else "")
    return words + (f", HTTP/{probe.http}" if probe.http else "")
