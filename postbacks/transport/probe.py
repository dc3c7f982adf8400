"""Probe: a test POST, observed step by step, and the outcome that a postback would have had.

The POST goes the way of every postback (guard, handle, limits, classification). Only its limits are relaxed,
so that it shows by how much a receiver misses the account's. The account's limits judge it afterwards.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import pycurl
from cryptography import x509

from postbacks.settings import Settings
from postbacks.transport.classify import classify
from postbacks.transport.client import CurlClient
from postbacks.transport.handle import CurlHandle
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer
from postbacks.urls import endpoint_of

_TLS_VERSION: Final = re.compile(rb"SSL connection using (\S+)")


@dataclass(frozen=True, slots=True)
class Certificate:
    """Facts of a server's certificate that an operator asks for."""

    names: tuple[str, ...]
    issuer: str
    ends: datetime


@dataclass(slots=True)
class Probe:
    """Facts of one test POST. Times are seconds since its begin, None where it did not come so far.

    Attributes:
        url: URL of the POST.
        postback_id: its id.
        limits: the account's profile.
        relaxed_limits: limits that the POST was made with, longer than the account's.
        outcome: outcome of a postback, under the account's limits.
        raw_outcome: outcome under the relaxed limits.
        resolved_s: time at which the name had its addresses.
        connected_s: time at which TCP stood.
        secured_s: time at which TLS stood.
        sent_s: time at which the request had left whole.
        header_s: time at which the header of the answer had come whole.
        total_s: time at which all was over.
        answer_s: duration from the connection to the whole header, which the answer's limit is about.
        connecting_s: duration of the connection, TLS included, which its limit is about.
        address: numeric address that TCP connected to (the proxy's where there is one).
        tls_version: version of TLS.
        certificate: the server's certificate.
        status: HTTP status of the answer.
        http: HTTP version of the answer.
        headers: headers of the answer, names in lower case.
    """

    url: str
    postback_id: str
    limits: Profile
    relaxed_limits: Profile
    outcome: Outcome = field(default_factory=lambda: Outcome("bad_url"))
    raw_outcome: Outcome = field(default_factory=lambda: Outcome("bad_url"))
    resolved_s: float | None = None
    connected_s: float | None = None
    secured_s: float | None = None
    sent_s: float | None = None
    header_s: float | None = None
    total_s: float = 0.0
    answer_s: float | None = None
    connecting_s: float | None = None
    address: str = ""
    tls_version: str = ""
    certificate: Certificate | None = None
    status: int | None = None
    http: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def closes(self) -> bool:
        """True if the answer says that the receiver closes the connection after it."""
        tokens = {token.strip() for token in self.headers.get("connection", "").lower().split(",")}
        return "close" in tokens or (self.http == "1.0" and "keep-alive" not in tokens)


class _ObservingClient(CurlClient):
    """Client of every delivery, which also reads libcurl's facts of its one POST into a probe."""

    def __init__(self, settings: Settings, probe: Probe) -> None:
        super().__init__(settings)
        self._probe = probe
        handle = CurlHandle(settings)
        handle.curl.setopt(pycurl.OPT_CERTINFO, 1)
        handle.curl.setopt(pycurl.VERBOSE, 1)
        handle.curl.setopt(pycurl.DEBUGFUNCTION, self._on_remark)
        self._free.append(handle)

    def _on_remark(self, kind: int, text: bytes) -> None:
        match = _TLS_VERSION.search(text) if kind == 0 else None  # 0: libcurl's own words
        if match:
            self._probe.tls_version = match[1].decode("ascii", "replace")

    def _begin(self, handle: CurlHandle) -> None:
        if handle.transfer is not None:  # libcurl knows nothing of the look-up that has ended now
            self._probe.resolved_s = time.monotonic() - handle.transfer.started_s
        super()._begin(handle)

    def _end(self, curl: pycurl.Curl, code: int, message: str) -> None:
        _read(curl, self._probe)
        super()._end(curl, code, message)


def _read(curl: Any, probe: Probe) -> None:
    before_s = probe.resolved_s or 0.0

    def moment(info: int, per_s: int = 1) -> float | None:
        value: float = curl.getinfo(info)
        return before_s + value / per_s if value else None

    probe.resolved_s = moment(pycurl.NAMELOOKUP_TIME) or probe.resolved_s
    probe.connected_s = moment(pycurl.CONNECT_TIME)
    probe.secured_s = moment(pycurl.APPCONNECT_TIME)
    probe.sent_s = moment(pycurl.PRETRANSFER_TIME)
    if hasattr(pycurl, "POSTTRANSFER_TIME_T"):  # libcurl 8.10: the time at which the last byte had left
        probe.sent_s = moment(pycurl.POSTTRANSFER_TIME_T, 1_000_000)
    probe.total_s = moment(pycurl.TOTAL_TIME) or 0.0
    if probe.connected_s is not None:
        host, port = curl.getinfo(pycurl.PRIMARY_IP), curl.getinfo(pycurl.PRIMARY_PORT)
        probe.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    versions = {pycurl.CURL_HTTP_VERSION_1_0: "1.0", pycurl.CURL_HTTP_VERSION_1_1: "1.1"}
    probe.http = versions.get(curl.getinfo(pycurl.INFO_HTTP_VERSION), "")
    chain = curl.getinfo(pycurl.INFO_CERTINFO)
    if chain:
        probe.certificate = _certificate(dict(chain[0]).get("Cert", ""))


def _certificate(pem: str) -> Certificate | None:
    """Return the facts of a server's certificate; None where it cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        issuer = certificate.issuer.rfc4514_string()
        common = certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names: list[str] = []
        try:
            alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = [str(name.value) for name in alternatives]
        except x509.ExtensionNotFound:
            pass
        return Certificate(
            tuple(names), str(common[0].value) if common else issuer, certificate.not_valid_after_utc
        )
    except ValueError:
        return None


def observe_post(transfer: Transfer, probe: Probe, settings: Settings) -> None:
    """Make one test POST and fill in its probe.

    Args:
        transfer: the POST; its profile is `probe.relaxed_limits`.
        probe: the probe, which is filled in.
        settings: the process's settings.
    """
    limits = probe.limits
    client = _ObservingClient(settings, probe)
    try:
        client.start(transfer)
        while not (ended := client.wait(0.2)):
            if transfer.header_s is not None:
                transfer.profile = limits  # the body gets no more time than that of a postback
    finally:
        client.close()
    probe.raw_outcome = ended[0][1]
    probe.outcome = _by_limits(transfer, limits, probe.raw_outcome)
    probe.total_s = max(probe.total_s, probe.raw_outcome.elapsed_s)
    if transfer.connected_s is not None:
        probe.connecting_s = transfer.connected_s - transfer.started_s
    if transfer.header_s is not None:
        probe.header_s = transfer.header_s - transfer.started_s
        probe.status = transfer.status
        if transfer.connected_s is not None:
            probe.answer_s = transfer.header_s - transfer.connected_s
        pairs = (line.decode("latin-1").partition(":") for line in transfer.header_lines)
        probe.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if not endpoint_of(probe.url).startswith("https://"):
        probe.secured_s = None


def _by_limits(transfer: Transfer, limits: Profile, raw_outcome: Outcome) -> Outcome:
    """Return the outcome of the same POST under the account's limits."""
    connecting_s = (transfer.connected_s or time.monotonic()) - transfer.started_s
    if raw_outcome.name == "connect_timeout" or (
        transfer.connected_s is not None and connecting_s >= limits.connect_timeout_s
    ):
        late = replace(transfer, profile=limits, connected_s=None, header_s=None)
    elif raw_outcome.name == "answer_timeout" or (
        transfer.connected_s is not None
        and transfer.header_s is not None
        and transfer.header_s - transfer.connected_s >= limits.answer_timeout_s
    ):
        late = replace(transfer, profile=limits, header_s=None)
    else:
        return raw_outcome
    return classify(late, pycurl.E_OPERATION_TIMEDOUT, "")
