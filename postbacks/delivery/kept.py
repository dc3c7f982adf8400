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

#: ``tcpi_bytes_received`` in Linux's ``struct tcp_info`` (linux/tcp.h).
_BYTES_RECEIVED, _BYTES_RECEIVED_AT = struct.Struct("=Q"), 128

#: Local host and port, remote host and port: the local ones alone may belong to several connections.
Addresses = tuple[str, int, str, int]


class Kept:
    """The open connections by their two addresses, as libcurl names them.

    What lies decrypted in a TLS connection no look at its socket can show. But an answer that comes though
    the connection has received no byte since its request began to leave was there before it.
    """

    def __init__(self) -> None:
        self._sockets: dict[Addresses, tuple[int, int]] = {}  # addresses -> descriptor, inode
        # descriptor -> inode, addresses; libcurl also waits for what is no connection
        self._addresses: dict[int, tuple[int, Addresses | None]] = {}

    def note(self, fd: int) -> None:
        """A connection that libcurl begins to wait for."""
        inode = os.fstat(fd).st_ino
        known = self._addresses.get(fd)
        if known is not None:
            if known[0] == inode:
                return
            if known[1] is not None and self._sockets.get(known[1], (-1, 0))[0] == fd:
                del self._sockets[known[1]]  # closed meanwhile; its number is another's now
        address = _addresses(fd)
        self._addresses[fd] = (inode, address)
        if address is not None:
            self._sockets[address] = (fd, inode)

    def received_bytes(self, addresses: Addresses) -> int | None:
        """The bytes that a connection has received so far; None where the system does not tell (Linux does)."""
        fd, inode = self._sockets.get(addresses, (-1, 0))
        try:
            if os.fstat(fd).st_ino != inode:
                return None
            with socket.socket(fileno=os.dup(fd)) as own:
                told = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except (OSError, AttributeError):
            return None
        if len(told) < _BYTES_RECEIVED.size + _BYTES_RECEIVED_AT:
            return None
        return int(_BYTES_RECEIVED.unpack_from(told, _BYTES_RECEIVED_AT)[0])

    def is_clean(self, addresses: Addresses) -> bool:
        """Whether nothing has come on the connection with these addresses, not even its end."""
        fd, inode = self._sockets.get(addresses, (-1, 0))
        try:
            if os.fstat(fd).st_ino != inode:
                return False
        except OSError:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return not poll.poll(0)


def _addresses(fd: int) -> Addresses | None:
    own = os.dup(fd)
    try:
        found = socket.socket(fileno=own)
    except OSError:  # no socket: libcurl wakes itself by it
        os.close(own)
        return None
    with found, suppress(OSError):
        if found.family != socket.AF_UNIX:
            return (*found.getsockname()[:2], *found.getpeername()[:2])
    return None
