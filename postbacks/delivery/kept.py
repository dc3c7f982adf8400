"""Kept connections, looked at just before one is used again.

libcurl does not look when a connection has rested for less than a second. What lies unread on it then,
say a second answer of 200, would be taken for the answer to the next postback.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

#: ``tcpi_bytes_received`` in Linux's ``struct tcp_info`` (linux/tcp.h).
_BYTES_RECEIVED, _BYTES_RECEIVED_AT = struct.Struct("=Q"), 128

#: Local host and port, remote host and port: the local ones alone may belong to several connections.
Addresses = tuple[str, int, str, int]


class _Look(NamedTuple):
    """A connection's descriptor, and a poll of it alone: made once, since every use asks it."""

    fd: int
    poll: select.poll


class Kept:
    """The kept connections by their two addresses, as libcurl names them.

    A connection is noted when its first answer has come, and forgotten when another one is made with the same
    addresses: so what is known under the addresses of a connection that lives is its own descriptor, and nothing
    need be asked of the system to be sure of it.

    What lies decrypted in a TLS connection no look at its socket can show. But an answer that comes though
    the connection has received no byte since its request began to leave was there before it.
    """

    def __init__(self) -> None:
        self._looks: dict[Addresses, _Look] = {}
        self._addresses: dict[int, Addresses] = {}
        #: The descriptor on which libcurl is at work, as far as that is known.
        self.serving = -1

    def __contains__(self, addresses: Addresses | None) -> bool:
        return addresses in self._looks

    def note(self, fd: int) -> None:
        """A connection that libcurl may keep from now on."""
        before = self._addresses.pop(fd, None)
        if before is not None:
            self.forget(before)  # closed meanwhile; its number is another's now
        addresses = _addresses(fd)
        if addresses is None:
            return
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._looks[addresses] = _Look(fd, poll)
        self._addresses[fd] = addresses

    def forget(self, addresses: Addresses) -> None:
        """A connection with these addresses is a new one: what was known of them was another's."""
        look = self._looks.pop(addresses, None)
        if look is not None:
            self._addresses.pop(look.fd, None)

    def received_bytes(self, addresses: Addresses) -> int | None:
        """The bytes that a connection has received so far; None where the system does not tell (Linux does)."""
        look = self._looks.get(addresses)
        if look is None:
            return None
        try:
            with socket.socket(fileno=os.dup(look.fd)) as own:
                told = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except (OSError, AttributeError):
            return None
        if len(told) < _BYTES_RECEIVED.size + _BYTES_RECEIVED_AT:
            return None
        return int(_BYTES_RECEIVED.unpack_from(told, _BYTES_RECEIVED_AT)[0])

    def is_clean(self, addresses: Addresses) -> bool:
        """Whether nothing has come on the connection with these addresses, not even its end."""
        look = self._looks.get(addresses)
        return look is not None and not look.poll.poll(0)


def _addresses(fd: int) -> Addresses | None:
    try:
        with socket.socket(fileno=os.dup(fd)) as found, suppress(OSError):
            if found.family != socket.AF_UNIX:
                return (*found.getsockname()[:2], *found.getpeername()[:2])
    except OSError:  # closed already
        return None
    return None
