"""One POST as libcurl makes it: what goes in, the handle with its callbacks, what has been seen of it.

Every limit of the promise that libcurl itself keeps is set here: the time to the connection
(CURLOPT_CONNECTTIMEOUT_MS: TCP, TLS and proxy, less what the name look-up took), protocols, TLS,
addresses, and how much of an answer is read. A transfer holds its document, at most 64 KiB of header, of the body
only the excerpt that the ledger keeps, and libcurl's buffers (16 KiB to receive, 64 KiB to send).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from postbacks.transport.acks import AckWatch, Ending
from postbacks.transport.connections import Addresses
from postbacks.transport.profile import Profile

#: A larger header is a failure; real ones are under 8 KiB.
MAX_HEADER_BYTES: Final = 65_536


@dataclass(slots=True, eq=False)
class Transfer:
    """One POST to make, and what has been seen of it so far (times of time.monotonic()).

    Attributes:
        url: absolute http or https URL; user and password in it become basic auth.
        body: the document, sent as it is.
        headers: ``Name: value`` lines.
        profile: its limits and its TLS.
        owner: whatever the caller wants to know it by.
        looked_up_s: when the host's addresses were found; None where there was nothing to look up.
        sends: how often the request began to leave: twice only where the first time nothing of it arrived.
        connection: the addresses of the connection that the request leaves by.
        watch: on what the kept connection that the request leaves by acknowledges.
        ending: of that connection, where it ended without an answer.
        stale: whether what came was there before the request left.
        on_new: whether it leaves over a connection that was made for it.
        connected_s: when the connection stood and the request began to leave.
        header_s: when the header of the answer had come whole.
        status: of the answer whose header is coming or has come.
        framed: whether its header says where its body ends; else the connection is not used again.
        excerpt: first bytes of its body as they came, ``excerpt_bytes`` at most.
        blocked: why the guard refused the latest address tried.
    """

    url: str
    body: bytes
    headers: Sequence[str]
    profile: Profile
    owner: Any = None
    started_s: float = 0.0
    looked_up_s: float | None = None
    sends: int = 0
    is_new_connection: bool = False
    connection: Addresses | None = None
    watch: AckWatch | None = None
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
        """Whether it has used up its time; the connection's alone is kept by libcurl, too.

        The whole is bounded as well, since libcurl begins anew where a kept connection was dead.
        """
        limits = self.profile
        if self.header_s is not None:
            return now_s - self.header_s >= limits.answer_timeout_s
        if self.connected_s is not None and now_s - self.connected_s >= limits.answer_timeout_s:
            return True
        return now_s - self.started_s >= limits.connect_timeout_s + limits.answer_timeout_s
