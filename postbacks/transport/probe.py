"""One test POST, observed: the steps that it took, and what it would have counted for.

The POST goes the way of every postback (guard, handle, limits, classification). Only its limits are longer,
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
    """The facts of a server's certificate that an operator asks for."""

    names: tuple[str, ...]
    issuer: str
    ends: datetime


@dataclass(slots=True)
class Probe:
    """What one test POST has shown. Times are seconds since its begin, None where it did not come so far.

    Attributes:
        outcome: what a postback would have had, by the account's limits.
        waited: what came of it with ping's patience.
        patience: the limits that ping itself waited for.
        resolved_s: the name had its addresses.
        connected_s: TCP stood.
        secured_s: TLS stood.
        sent_s: the request had left whole.
        header_s: the header of the answer had come whole.
        total_s: all was over.
        answer_s: from the connection to the whole header, what the answer's limit is about.
        address: numeric, where TCP stood (the proxy's where there is one).
        headers: of the answer, names in lower case.
        http: version of the answer.
        connecting_s: how long the connection, TLS included, took; what its limit is about.
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
        """Whether the receiver ends the connection after its answer, as far as the answer says so."""
        tokens = {token.strip() for token in self.headers.get("connection", "").lower().split(",")}
        return "close" in tokens or (self.http == "1.0" and "keep-alive" not in tokens)


class _ObservingClient(CurlClient):
    """The adapter of every delivery, which also reads libcurl's facts of the one that it makes."""

    def __init__(self, settings: Settings, probe: Probe) -> None:
        super().__init__(settings)
        self._probe = probe
        handle = CurlHandle(settings)
        handle.curl.setopt(pycurl.OPT_CERTINFO, 1)
        handle.curl.setopt(pycurl.VERBOSE, 1)
        handle.curl.setopt(pycurl.DEBUGFUNCTION, self._on_remark)
        self._free.append(handle)

    def _on_remark(self, kind: int, text: bytes) -> None:
        found = _TLS_VERSION.search(text) if kind == 0 else None  # 0: libcurl's own words
        if found:
            self._probe.tls_version = found[1].decode("ascii", "replace")

    def _begin(self, handle: CurlHandle) -> None:
        if handle.transfer is not None:  # until now its host was looked up, which libcurl knows nothing of
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
    if hasattr(pycurl, "POSTTRANSFER_TIME_T"):  # libcurl 8.10: when its last byte had left
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
    """The facts of a stranger's certificate; None where it cannot be read."""
    try:
        found = x509.load_pem_x509_certificate(pem.encode())
        issuer = found.issuer.rfc4514_string()
        common = found.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names: list[str] = []
        try:
            others = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = [str(name.value) for name in others]
        except x509.ExtensionNotFound:
            pass
        return Certificate(
            tuple(names), str(common[0].value) if common else issuer, found.not_valid_after_utc
        )
    except ValueError:
        return None


def observe_post(transfer: Transfer, probe: Probe, settings: Settings) -> None:
    """Make one test POST and fill in what it shows.

    Args:
        transfer: the POST; its profile is ping's own, `probe.relaxed_limits`.
        probe: the observation, which is filled in.
        settings: the process's.
    """
    limits = probe.limits
    client = _ObservingClient(settings, probe)
    try:
        client.start(transfer)
        while not (ended := client.wait(0.2)):
            if transfer.header_s is not None:
                transfer.profile = limits  # its body gets no more than it always does
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
    """What the same POST would have had if nobody had waited longer than the limits."""
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
