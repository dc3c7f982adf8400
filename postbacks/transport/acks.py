"""The proof that nothing of a request arrived, though it had left over a kept connection.

A receiver that closes a connection which rests may send its FIN while a request is on the wire: nobody has read the
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
        state: of the connection, by Linux's numbers.
        acked_bytes: ours that the other side has acknowledged.
        received_bytes: received in order; a FIN counts one.
        data_segments: received segments that held data; a FIN alone is none.
    """

    state: int
    acked_bytes: int
    received_bytes: int
    data_segments: int


def read_tcp_info(connection: socket.socket) -> bytes:
    """Read what the system tells of a connection; nothing where it is not Linux, or the connection no TCP."""
    if sys.platform != "linux":
        return b""
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return b""


def parse_tcp_info(info: bytes) -> Counters | None:
    """Parse the counters; None where they are not all there (Linux before 4.6)."""
    return Counters(*_TCP_INFO.unpack(info)) if len(info) == _TCP_INFO.size else None


class Ending(enum.Enum):
    """How a kept connection ended after a request had left over it.

    Attributes:
        CROSSED: by a FIN that was sent before anything of the request arrived.
        CLOSED: otherwise, and the request may have arrived.
        RESET: by a reset; the request may have arrived.
    """

    CROSSED = enum.auto()
    CLOSED = enum.auto()
    RESET = enum.auto()


class AckWatch:
    """What is acknowledged of one request, watched from just before it leaves.

    libcurl closes its descriptor where no callback tells, so the watch keeps a duplicate. It is to be released before
    another connection is opened: while it stands, epoll goes on reporting the descriptor that libcurl has closed.

    Args:
        connection: the kept connection, which lives.

    Raises:
        OSError: no descriptor is left.
    """

    __slots__ = ("_before", "_connection", "_fd")

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._before = read_tcp_info(connection)  # parsed only if it is asked for: most requests are answered
        self._fd = os.dup(connection.fileno())

    def has_received(self) -> bool:
        """Whether anything has come since; the connection must live. True where the system does not tell."""
        counters = self._compare(self._connection)
        return counters is None or counters[0].received_bytes != counters[1].received_bytes

    def settle(self) -> Ending:
        """Judge how the connection ended, and release it."""
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
        """Return the counters from before and those of now; None where the system does not tell.

        Some systems hand out zeros (gVisor), or pass the bytes by without counting them (eBPF's sockmap). But a request
        has been acknowledged and answered on every connection that is kept; the first acknowledged byte is the SYN.
        """
        before, now = parse_tcp_info(self._before), parse_tcp_info(read_tcp_info(connection))
        if before is None or now is None or before.acked_bytes <= 1 or not before.received_bytes:
            return None
        return before, now

    def release(self) -> None:
        """Close the duplicate, if it stands."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _had_fin(connection: socket.socket, before: Counters, now: Counters) -> bool:
    """Whether a FIN has come. Linux forgets the state that a reset meets; two traces of the FIN remain.

    The reset's error is EPIPE where a FIN had come, until libcurl writes (TLS says goodbye) and takes it. And a
    sequence number that no data has used up was a FIN's.
    """
    if now.state == _CLOSE_WAIT:
        return True
    if now.state != _CLOSE:
        return False
    if now.received_bytes > before.received_bytes and now.data_segments == before.data_segments:
        return True
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE
