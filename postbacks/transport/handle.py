"""libcurl's handle of a POST, with its options and callbacks.

Every limit of the promise that libcurl itself keeps is set here: the time to the connection
(CURLOPT_CONNECTTIMEOUT_MS: TCP, TLS and proxy, less what the name look-up took), protocols, TLS, addresses, and
how much of an answer is read.
"""

from __future__ import annotations

import base64
import re
import socket
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import pycurl
import requests

from postbacks.guard import early_refusal, refusal
from postbacks.settings import Settings
from postbacks.transport.acks import Ending
from postbacks.transport.answer import MISREAD, is_framed
from postbacks.transport.connections import IdleConnections
from postbacks.transport.profile import Tls
from postbacks.transport.transfer import MAX_HEADER_BYTES, Transfer
from postbacks.transport.trust import system_trust_store
from postbacks.urls import read_url

#: Bytes that the system receives ahead of us; more would only let a flood keep the loop from its other transfers.
RECEIVE_BYTES: Final = 16_384
#: Status line by RFC 9112 4; the reason may be missing, and the space before it.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_END_OF_HEADER: Final = frozenset({b"\r\n", b"\n"})
#: Seconds for which a connection may have been idle to be used again; libcurl's own default. docs/receiving.md asks
#: receivers to keep theirs for longer.
MAX_IDLE_S: Final = 118
#: Seconds of a look-up that the limit of the connection is not shortened for.
_NO_TIME_S: Final = 0.01
#: Answers to libcurl of the callback at a connection.
_OK: Final = int(pycurl.PREREQFUNC_OK)
_ABORT: Final = int(pycurl.PREREQFUNC_ABORT)
#: CURLOPT_SUPPRESS_CONNECT_HEADERS, for which pycurl has no name.
_SUPPRESS_CONNECT_HEADERS: Final = 265
#: Bytes of a body that are read at most, but for what libcurl's buffer holds; the status has been decided before.
MAX_BODY_BYTES: Final = 65_536
#: The same in pieces, a chunk each: a receiver can send 20,000 chunks of a byte.
MAX_BODY_PIECES: Final = 500


class Prepared(NamedTuple):
    """URL as it is sent (normalised, IDNA, no credentials), with what follows from it.

    Attributes:
        url: the URL for libcurl.
        headers: basic auth, where the URL had credentials.
        host: name that must be looked up, or empty.
        port: port of the connection.
    """

    url: str
    headers: tuple[str, ...]
    host: str
    port: int


@lru_cache(maxsize=10_000)
def prepare(url: str) -> Prepared:
    """Prepare a URL, once for all its POSTs.

    Raises:
        InvalidUrl: the URL cannot be sent to; an application's own store, and older records, may hold anything.
    """
    wanted = read_url(url)
    # We read the host ourselves; requests encodes path and query.
    target = requests.Request("POST", f"http://host{wanted.target}").prepare().path_url
    looked_up = "" if wanted.is_address or wanted.is_local else wanted.host
    return Prepared(wanted.origin + target, _basic_auth(wanted.userinfo), looked_up, wanted.port)


def _basic_auth(userinfo: str) -> tuple[str, ...]:
    """Return the header for a URL's user and password, as UTF-8 (RFC 7617 2.1); empty where there are none."""
    user, _, password = userinfo.partition(":")
    if not user and not password:
        return ()
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return (f"Authorization: Basic {base64.b64encode(pair).decode()}",)


class _CopiedSocket(socket.socket):
    """Socket whose descriptor pycurl duplicates for libcurl: ours is closed without a warning when it is dropped."""

    def __del__(self) -> None:
        self.close()


def _is_stale(transfer: Transfer) -> bool:
    """True if this answer lay decrypted in a kept TLS connection before its request began to leave."""
    watch = transfer.ack_watch
    return watch is not None and transfer.url[:5].lower() == "https" and not watch.has_received()


class CurlHandle:
    """libcurl's easy handle with our callbacks, used for one transfer after the other.

    Args:
        settings: the process's settings.
        idle: the connections that libcurl keeps.

    Attributes:
        curl: the easy handle.
        host: name that must be looked up, or empty.
        port: port of the connection.
        reusable: False once the handle has an account's own TLS.
        transfer: the transfer under way.
    """

    __slots__ = (
        "_connect_timeout_s",
        "_idle",
        "_ignores_length",
        "_renewed",
        "_resolves",
        "_settings",
        "curl",
        "host",
        "port",
        "reusable",
        "transfer",
    )

    def __init__(self, settings: Settings, idle: IdleConnections | None = None) -> None:
        self._settings = settings
        self._idle = idle or IdleConnections()
        self._connect_timeout_s = 0.0
        self._ignores_length = False
        self._renewed = False
        self._resolves = False
        self.host = ""
        self.port = 0
        self.reusable = True
        self.transfer: Transfer | None = None
        curl = pycurl.Curl()
        self.curl = curl
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.NOPROGRESS, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.HTTP09_ALLOWED, 0)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.MAXAGE_CONN, MAX_IDLE_S)
        # An empty proxy, too, keeps libcurl from the environment's.
        curl.setopt(pycurl.PROXY, settings.proxy_url)
        curl.setopt(pycurl.NOPROXY, "")
        # The proxy's 200 to CONNECT is not the receiver's.
        curl.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        curl.setopt(pycurl.PROXY_CAINFO, system_trust_store())
        curl.setopt(pycurl.PROXY_SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        curl.setopt(pycurl.HTTP_CONTENT_DECODING, 0)  # a compressed bomb stays as small as it came
        # With 1, libcurl refuses an answer for a transfer coding that it does not know.
        curl.setopt(pycurl.HTTP_TRANSFER_DECODING, 0)
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        curl.setopt(pycurl.CAINFO, system_trust_store())
        curl.setopt(pycurl.PREREQFUNCTION, self._on_connected)
        curl.setopt(pycurl.HEADERFUNCTION, self._on_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._on_socket)

    def load(self, transfer: Transfer) -> None:
        """Set the handle up for a transfer.

        Raises:
            InvalidUrl: the URL cannot be sent to.
            pycurl.error: the account's TLS settings cannot be used.
        """
        url, own_headers, self.host, self.port = prepare(transfer.url)
        credentials = own_headers or transfer.profile.authorization
        curl = self.curl
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.POSTFIELDS, transfer.body)
        curl.setopt(pycurl.HTTPHEADER, ["Expect:", *credentials, *transfer.headers])
        self._limit_connecting(transfer.profile.connect_timeout_s)
        ignores_length = transfer.url in MISREAD
        if ignores_length != self._ignores_length:
            self._ignores_length = ignores_length
            curl.setopt(pycurl.IGNORE_CONTENT_LENGTH, ignores_length)
        if transfer.profile.tls is not None:
            self._set_tls(transfer.profile.tls)
        if self._settings.proxy_url or self._settings.https_only:
            # Through a proxy the sockets show the proxy's address: what the URL says is all we see.
            transfer.blocked = early_refusal(transfer.url, self._settings)
        if self._settings.proxy_url:
            self.host = ""  # the proxy looks it up
        if self._renewed:
            self._renewed = False
            curl.setopt(pycurl.FRESH_CONNECT, 0)
        if self._resolves:
            self._resolves = False
            curl.setopt(pycurl.RESOLVE, [])
        self.transfer = transfer
        transfer.excerpt_bytes = self._settings.excerpt_bytes
        transfer.started_s = time.monotonic()

    def renew(self) -> bool:
        """Prepare the transfer to begin anew over a new connection, if nothing of it has arrived over a kept one.

        libcurl by itself would send it again over one kept connection after the other, up to five times.

        Returns:
            True if it is to begin anew.
        """
        transfer = self.transfer
        if self._renewed or transfer is None or transfer.is_new_connection or transfer.header_bytes:
            return False
        if transfer.sends and not self._may_send_again(transfer):
            return False
        self._renewed = True
        transfer.renewed_s = time.monotonic()
        self.curl.setopt(pycurl.FRESH_CONNECT, 1)
        return True

    def _may_send_again(self, transfer: Transfer) -> bool:
        """True if a request that has left may leave once more in the same attempt. In doubt it may not."""
        if transfer.ending is None:
            watch, transfer.ack_watch = transfer.ack_watch, None
            ending = Ending.CLOSED if watch is None else watch.settle()
            # Through a proxy, the proxy acknowledges and not the receiver.
            transfer.ending = (
                Ending.CLOSED if self._settings.proxy_url and ending is Ending.CROSSED else ending
            )
        return transfer.sends < 2 and transfer.ending is Ending.CROSSED

    def resolve(self, addresses: Sequence[str]) -> None:
        """Give libcurl the addresses of the host; the time that the look-up took is used up."""
        self._resolves = True
        # The plus lets them expire, as if libcurl itself had looked them up.
        self.curl.setopt(pycurl.RESOLVE, [f"+{self.host}:{self.port}:{','.join(addresses)}"])
        if self.transfer is not None:
            self.transfer.looked_up_s = time.monotonic()
            spent_s = self.transfer.looked_up_s - self.transfer.started_s
            if spent_s > _NO_TIME_S:
                self._limit_connecting(self.transfer.profile.connect_timeout_s - spent_s)

    def address_of(self, transfer: Transfer) -> str:
        """Return the address that a transfer went to, or was to go to; empty through a proxy, and where none was tried."""
        if transfer.connection is None or transfer.connected_s is None:
            return transfer.address
        return "" if self._settings.proxy_url else transfer.connection[2]

    def _limit_connecting(self, limit_s: float) -> None:
        if limit_s != self._connect_timeout_s:
            self._connect_timeout_s = limit_s
            self.curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(limit_s * 1000)))

    def _set_tls(self, tls: Tls) -> None:
        """Set an account's own TLS; the handle serves nobody else afterwards."""
        self.reusable = False
        for option, value in (
            (pycurl.CAINFO_BLOB, tls.ca_bundle),
            (pycurl.SSLCERT_BLOB, tls.client_cert),
            (pycurl.SSLKEY_BLOB, tls.client_key),
        ):
            if value:
                self.curl.setopt(option, value.encode())
        if tls.client_cert:
            self.curl.setopt(pycurl.SSLCERTTYPE, "PEM")
        if tls.pinned_keys:
            self.curl.setopt(pycurl.PINNEDPUBLICKEY, ";".join(tls.pinned_keys))

    def _on_connected(self, remote_host: str, local_host: str, remote_port: int, local_port: int) -> int:
        transfer = self.transfer
        if transfer is None:
            return _ABORT
        # libcurl asks before each time that the request leaves, also where it begins anew by itself.
        if transfer.sends and not self._may_send_again(transfer):
            return _ABORT
        # At most one kept connection is tried, and only one on which nothing has come unasked.
        connection = (local_host, local_port, remote_host, remote_port)
        if transfer.is_new_connection:
            self._idle.forget(connection)
        elif transfer.sends or not self._idle.is_clean(connection):
            return _ABORT
        else:
            transfer.ack_watch = self._idle.watch(connection)
        transfer.connection = connection
        transfer.sends += 1
        transfer.connected_s = time.monotonic()
        return _OK

    def _on_header(self, line: bytes) -> int | None:
        transfer = self.transfer
        if transfer is None:
            return 0
        transfer.header_bytes += len(line)  # 1xx answers and trailers count, too
        if transfer.header_bytes > MAX_HEADER_BYTES:
            return 0
        if transfer.header_s is not None:
            return None  # trailers of a chunked body
        if transfer.status is None:
            if _is_stale(transfer):
                transfer.stale = True
                return 0
            match = _STATUS_LINE.fullmatch(line)
            if match is None:
                return 0
            transfer.status = int(match[1])
        elif line in _END_OF_HEADER:
            if transfer.status >= 200:
                transfer.header_s = time.monotonic()
                transfer.framed = is_framed(transfer.header_lines)
                if self._ignores_length or not transfer.framed:
                    return self._on_unframed(transfer)
                if transfer.is_new_connection:
                    # libcurl may reuse this connection before it reports this transfer as done, so add it now.
                    self._idle.add(self._idle.current_fd)
            else:  # 1xx answers come before the answer (RFC 9110 15.2)
                transfer.status = None
                transfer.header_lines.clear()
        else:
            transfer.header_lines.append(line)
        return None

    def _on_unframed(self, transfer: Transfer) -> int | None:
        """Read a body whose end libcurl does not know only for a failure's excerpt; libcurl then closes the connection."""
        if transfer.framed:
            MISREAD.discard(transfer.url)
        if transfer.connection is not None:
            self._idle.forget(transfer.connection)
        return 0 if transfer.status == 200 else None

    def _on_body(self, data: bytes) -> int | None:
        transfer = self.transfer
        if transfer is None:
            return 0
        missing = transfer.excerpt_bytes - len(transfer.excerpt)
        if missing > 0:
            transfer.excerpt += data[:missing]
        transfer.body_bytes += len(data)
        transfer.body_pieces += 1
        too_much = transfer.body_bytes > MAX_BODY_BYTES or transfer.body_pieces > MAX_BODY_PIECES
        return 0 if too_much or self._ignores_length or not transfer.framed else None

    def _on_socket(self, _purpose: int, address: Any) -> socket.socket | int:
        if self.transfer is not None and self.transfer.sends and not self._may_send_again(self.transfer):
            return int(pycurl.SOCKET_BAD)
        family, kind, protocol, (host, port, *_) = address
        reason = None if self._settings.proxy_url else refusal(host, port, self._settings)
        if self.transfer is not None:
            self.transfer.blocked = reason
            self.transfer.is_new_connection = True
            self.transfer.connected_s = None  # a kept connection was dead: a new one is yet to be made
        if reason is not None:
            return int(pycurl.SOCKET_BAD)
        if self.transfer is not None and not self._settings.proxy_url:
            self.transfer.address = host
        connection = _CopiedSocket(family, kind, protocol)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        return connection
