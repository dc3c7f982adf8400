"""Kept connections, looked at just before one is used again.

libcurl does not look when a connection has rested for less than a second. What lies unread on it then,
say a second answer of 200, would be taken for the answer to the next postback.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import NamedTuple

from postbacks.transport.acks import AckWatch

#: Local host and port, remote host and port: the local ones alone may belong to several connections.
Addresses = tuple[str, int, str, int]


class _Borrowed(socket.socket):
    """A socket on a descriptor of libcurl's, which is not closed with it."""

    def __del__(self) -> None:
        self.detach()


class _WatchedSocket(NamedTuple):
    """A connection and a poll of it alone: made once, since every use asks them."""

    connection: _Borrowed
    poll: select.poll


class IdleConnections:
    """The kept connections by their two addresses, as libcurl names them.

    A connection is noted when its first answer has come, and forgotten when another one is made with the same
    addresses: so what is known under the addresses of a connection that lives is its own descriptor, and nothing
    need be asked of the system to be sure of it.

    What lies decrypted in a TLS connection no look at its socket can show. But an answer that comes though
    the connection has received no byte since its request began to leave was there before it.
    """

    def __init__(self) -> None:
        # One a descriptor of this process at most: its limit of open files.
        self._sockets: dict[Addresses, _WatchedSocket] = {}
        self._addresses: dict[int, Addresses] = {}
        #: The descriptor on which libcurl is at work, as far as that is known.
        self.current_fd = -1

    def __contains__(self, addresses: Addresses | None) -> bool:
        return addresses in self._sockets

    def add(self, fd: int) -> None:
        """A connection that libcurl may keep from now on."""
        before = self._addresses.pop(fd, None)
        if before is not None:
            self.forget(before)  # closed meanwhile; its number is another's now
        try:
            connection = _Borrowed(fileno=fd)
        except (OSError, ValueError):  # closed already; or none is known
            return
        addresses = _addresses(connection)
        if addresses is None:
            return
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._sockets[addresses] = _WatchedSocket(connection, poll)
        self._addresses[fd] = addresses

    def forget(self, addresses: Addresses) -> None:
        """A connection with these addresses is a new one: what was known of them was another's."""
        watched = self._sockets.pop(addresses, None)
        if watched is not None:
            self._addresses.pop(watched.connection.fileno(), None)

    def watch(self, addresses: Addresses) -> AckWatch | None:
        """Watch a request that is about to leave by this connection; None where no descriptor is left for it."""
        watched = self._sockets.get(addresses)
        if watched is None:
            return None
        try:
            return AckWatch(watched.connection)
        except OSError:
            return None

    def is_clean(self, addresses: Addresses) -> bool:
        """Whether nothing has come on the connection with these addresses, not even its end."""
        watched = self._sockets.get(addresses)
        return watched is not None and not watched.poll.poll(0)


def _addresses(connection: socket.socket) -> Addresses | None:
    with suppress(OSError):
        if connection.family != socket.AF_UNIX:
            return (*connection.getsockname()[:2], *connection.getpeername()[:2])
    return None
