"""Proof that nothing of a request arrived, although it had left over a kept connection.

A receiver that closes an idle connection may send its FIN while a request is on the wire: nobody has read the
request, and it may leave again at once. A receiver that reads the request and closes without an answer has had its
POST: a second one in the same attempt would break the promise.

TCP tells them apart. Every segment but a reset that a server sends once it has received any of our bytes acknowledges
them, and Linux counts what a segment acknowledges before it takes the FIN in it. So a FIN beside no acknowledgement
left before anything of the request arrived. Bytes other than a FIN prove nothing, since a reset may follow them. A
reset proves nothing either: Linux passes over the acknowledgement that it carries.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
import struct
import sys
from typing import Final, NamedTuple

#: The fields of ``Counters`` in Linux's ``struct tcp_info`` (linux/tcp.h).
_TCP_INFO: Final = struct.Struct("=B119xQQ16xI")
#: States of a connection (linux/net/tcp_states.h): ended by a reset; a FIN has come.
_CLOSE, _CLOSE_WAIT = 7, 8


class Counters(NamedTuple):
    """Counters of a TCP connection.

    Attributes:
        state: state of the connection, by Linux's numbers.
        acked_bytes: bytes of ours that the other side has acknowledged.
        received_bytes: bytes received in order; a FIN counts one.
        data_segments: segments received that held data; a FIN alone is none.
    """

    state: int
    acked_bytes: int
    received_bytes: int
    data_segments: int


def read_tcp_info(connection: socket.socket) -> bytes:
    """Return the system's facts of a connection; empty where the system is not Linux, or the connection no TCP."""
    if sys.platform != "linux":
        return b""
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return b""


def parse_tcp_info(info: bytes) -> Counters | None:
    """Parse the counters; None where some are missing (Linux before 4.6)."""
    return Counters(*_TCP_INFO.unpack(info)) if len(info) == _TCP_INFO.size else None


class Ending(enum.Enum):
    """End of a kept connection after a request had left over it.

    Attributes:
        CROSSED: a FIN that was sent before anything of the request arrived.
        CLOSED: any other FIN; the request may have arrived.
        RESET: a reset; the request may have arrived.
    """

    CROSSED = enum.auto()
    CLOSED = enum.auto()
    RESET = enum.auto()


class AckWatch:
    """Watch on what is acknowledged of one request, from just before it leaves.

    libcurl closes its descriptor without a callback, so the watch keeps a duplicate. Release it before another
    connection is opened: while it stands, epoll goes on reporting the descriptor that libcurl has closed.

    Args:
        connection: the kept connection, still open.

    Raises:
        OSError: no descriptor is left.
    """

    __slots__ = ("_before", "_connection", "_fd")

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._before = read_tcp_info(connection)  # parsed only if it is asked for: most requests are answered
        self._fd = os.dup(connection.fileno())

    def has_received(self) -> bool:
        """True if anything has come since, or the system does not tell. The connection must still be open."""
        counters = self._compare(self._connection)
        return counters is None or counters[0].received_bytes != counters[1].received_bytes

    def settle(self) -> Ending:
        """Return how the connection ended, and release the watch."""
        with socket.socket(fileno=self._fd) as connection:
            self._fd = -1
            counters = self._compare(connection)
            if counters is None:
                return Ending.CLOSED
            before, now = counters
            if _had_fin(connection, before, now):
                return Ending.CROSSED if now.acked_bytes == before.acked_bytes else Ending.CLOSED
            return Ending.RESET if now.state == _CLOSE else Ending.CLOSED

    def _compare(self, connection: socket.socket) -> tuple[Counters, Counters] | None:
        """Return the counters from before the request and those of now; None where the system does not tell.

        Some systems return zeros (gVisor), or pass bytes on without counting them (eBPF's sockmap). But on every
        connection that is kept a request has been acknowledged and answered; the first acknowledged byte is the SYN.
        """
        before, now = parse_tcp_info(self._before), parse_tcp_info(read_tcp_info(connection))
        if before is None or now is None or before.acked_bytes <= 1 or not before.received_bytes:
            return None
        return before, now

    def release(self) -> None:
        """Close the duplicate, if it is open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _had_fin(connection: socket.socket, before: Counters, now: Counters) -> bool:
    """True if a FIN has come. A reset makes Linux forget that state, but two traces of the FIN remain.

    The reset's error is EPIPE where a FIN had come, until libcurl writes (the goodbye of TLS) and takes the error. And a
    sequence number that no data has used up was a FIN's.
    """
    if now.state == _CLOSE_WAIT:
        return True
    if now.state != _CLOSE:
        return False
    if now.received_bytes > before.received_bytes and now.data_segments == before.data_segments:
        return True
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE
