"""A POST under way: its request, and the facts of its course.

A transfer holds its document, at most 64 KiB of the answer's header, of the body only the excerpt that the ledger
keeps, and libcurl's buffers (16 KiB to receive, 64 KiB to send).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from postbacks.transport.acks import AckWatch, Ending
from postbacks.transport.connections import Addresses
from postbacks.transport.profile import Profile

#: Bytes of an answer's header above which the attempt fails; real ones are under 8 KiB.
MAX_HEADER_BYTES: Final = 65_536


@dataclass(slots=True, eq=False)
class Transfer:
    """A POST to make, and the facts of its course so far (times of time.monotonic()).

    Attributes:
        url: absolute http or https URL; user and password in it become basic auth.
        body: the document, sent as it is.
        headers: ``Name: value`` lines.
        profile: the account's limits and TLS.
        owner: object of the caller's, for its own use.
        looked_up_s: time at which the host's addresses were found; None where there was nothing to look up.
        renewed_s: time at which it began anew over a new connection; None where it did not.
        address: address that the latest new connection was to be made to; empty through a proxy.
        sends: times that the request began to leave; twice only where nothing of it arrived the first time.
        is_new_connection: True if the request leaves over a connection that was made for it.
        connection: addresses of the connection that the request leaves by.
        ack_watch: watch on what that connection acknowledges, where it was kept from an earlier transfer.
        ending: end of that connection, where it ended without an answer.
        stale: True if the answer was there before the request left.
        connected_s: time at which the connection stood and the request began to leave.
        header_s: time at which the header of the answer had come whole.
        status: status of the answer whose header is coming or has come.
        framed: True if the header says where the body ends; else the connection is not used again.
        excerpt: first bytes of the body as they came, ``excerpt_bytes`` at most.
        blocked: the guard's reason to refuse the latest address that was tried.
    """

    url: str
    body: bytes
    headers: Sequence[str]
    profile: Profile
    owner: Any = None
    started_s: float = 0.0
    looked_up_s: float | None = None
    renewed_s: float | None = None
    address: str = ""
    sends: int = 0
    is_new_connection: bool = False
    connection: Addresses | None = None
    ack_watch: AckWatch | None = None
    ending: Ending | None = None
    stale: bool = False
    connected_s: float | None = None
    header_s: float | None = None
    header_bytes: int = 0
    header_lines: list[bytes] = field(default_factory=list)
    status: int | None = None
    body_bytes: int = 0
    body_pieces: int = 0
    framed: bool = True
    excerpt: bytes = b""
    excerpt_bytes: int = 0
    blocked: str | None = None

    def overdue(self, now_s: float) -> bool:
        """True if the transfer has used up its time; libcurl keeps the limit of the connection alone.

        The whole is bounded as well, since libcurl begins anew where a kept connection was dead.
        """
        limits = self.profile
        if self.header_s is not None:
            return now_s - self.header_s >= limits.answer_timeout_s
        if self.connected_s is not None and now_s - self.connected_s >= limits.answer_timeout_s:
            return True
        return now_s - self.started_s >= limits.connect_timeout_s + limits.answer_timeout_s
