"""Kept connections, looked at just before one is used again.

libcurl does not look when a connection has rested for less than a second. What lies unread on it then,
say a second answer of 200, would be taken for the answer to the next postback.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress


class Kept:
    """The open connections by their local address, as libcurl names them."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[str, int], tuple[int, int]] = {}  # local address -> descriptor, inode
        # descriptor -> inode, local address; libcurl also waits for what is no connection
        self._addresses: dict[int, tuple[int, tuple[str, int] | None]] = {}

    def note(self, fd: int) -> None:
        """A connection that libcurl begins to wait for."""
        inode = os.fstat(fd).st_ino
        known = self._addresses.get(fd)
        if known is not None:
            if known[0] == inode:
                return
            if known[1] is not None and self._sockets.get(known[1], (-1, 0))[0] == fd:
                del self._sockets[known[1]]  # closed meanwhile; its number is another's now
        address = _local_address(fd)
        self._addresses[fd] = (inode, address)
        if address is not None:
            self._sockets[address] = (fd, inode)

    def is_clean(self, host: str, port: int) -> bool:
        """Whether nothing has come on the connection with this local address, not even its end."""
        fd, inode = self._sockets.get((host, port), (-1, 0))
        try:
            if os.fstat(fd).st_ino != inode:
                return False
        except OSError:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return not poll.poll(0)


def _local_address(fd: int) -> tuple[str, int] | None:
    own = os.dup(fd)
    try:
        found = socket.socket(fileno=own)
    except OSError:  # no socket: libcurl wakes itself by it
        os.close(own)
        return None
    with found, suppress(OSError):
        return None if found.family == socket.AF_UNIX else found.getsockname()[:2]
    return None
