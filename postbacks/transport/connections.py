"""Idle connections, checked just before one is used again.

libcurl does not check a connection that has been idle for less than a second. What lies unread on it then,
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
    """Socket on a descriptor of libcurl's, which stays open when the socket is dropped."""

    def __del__(self) -> None:
        self.detach()


class _WatchedSocket(NamedTuple):
    """A connection with a poll of it alone; made once, since every use asks it."""

    connection: _Borrowed
    poll: select.poll


class IdleConnections:
    """Registry of the connections that libcurl keeps, by their two addresses, as libcurl names them.

    A connection is added when its first answer has come, and forgotten when another one is made with the same
    addresses. So the addresses of a living connection always lead to its own descriptor, without a system call.

    No check of a socket can show what lies decrypted in its TLS connection. But an answer that comes although
    the connection has received no byte since its request began to leave was there before the request.

    Attributes:
        current_fd: descriptor on which libcurl is at work, as far as that is known; else -1.
    """

    def __init__(self) -> None:
        # Bounded by the process's limit of open files.
        self._sockets: dict[Addresses, _WatchedSocket] = {}
        self._addresses: dict[int, Addresses] = {}
        self.current_fd = -1

    def __contains__(self, addresses: Addresses | None) -> bool:
        return addresses in self._sockets

    def add(self, fd: int) -> None:
        """Register a connection that libcurl may keep from now on."""
        closed = self._addresses.pop(fd, None)
        if closed is not None:
            self.forget(closed)  # its descriptor is another's now
        try:
            connection = _Borrowed(fileno=fd)
        except (OSError, ValueError):  # closed already; or libcurl's is not known
            return
        addresses = _addresses(connection)
        if addresses is None:
            return
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._sockets[addresses] = _WatchedSocket(connection, poll)
        self._addresses[fd] = addresses

    def forget(self, addresses: Addresses) -> None:
        """Forget the connection with these addresses: a new one has them now."""
        watched = self._sockets.pop(addresses, None)
        if watched is not None:
            self._addresses.pop(watched.connection.fileno(), None)

    def watch(self, addresses: Addresses) -> AckWatch | None:
        """Watch a request that is about to leave by this connection; None where no descriptor is left for that."""
        watched = self._sockets.get(addresses)
        if watched is None:
            return None
        try:
            return AckWatch(watched.connection)
        except OSError:
            return None

    def is_clean(self, addresses: Addresses) -> bool:
        """True if the idle connection has no unread data and is not closed by the peer."""
        watched = self._sockets.get(addresses)
        return watched is not None and not watched.poll.poll(0)


def _addresses(connection: socket.socket) -> Addresses | None:
    with suppress(OSError):
        if connection.family != socket.AF_UNIX:
            return (*connection.getsockname()[:2], *connection.getpeername()[:2])
    return None
