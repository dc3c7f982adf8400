"""Slow start of endpoints as its script writes it: one packed text an endpoint (``_slow_start.lua``)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

from postbacks.broker.client import text

_PACKED: Final = re.compile(r"(\d+) (\d+) (\d+) ([01]) (\d+) (.*)", re.DOTALL)


class EndpointStart(NamedTuple):
    """An endpoint that has failed to connect.

    Attributes:
        since_ms: when it last took a connection, or first did not.
        last_ms: when a POST there began or ended.
        limit: POSTs that it may have open; 0 while it has not failed for long enough.
        is_up: it took the last connection.
        tried_ms: when the last POST began that had no connection in time.
        account: of that POST.
    """

    since_ms: int
    last_ms: int
    limit: int
    is_up: bool
    tried_ms: int
    account: str

    @classmethod
    def parse(cls, packed: bytes | None) -> Self | None:
        """Read an entry of ``postbacks:starts``; None where there is none, or none that the script could read."""
        match = _PACKED.fullmatch(text(packed or b""))
        if match is None:
            return None
        since_ms, last_ms, limit, up, tried_ms, account = match.groups()
        return cls(int(since_ms), int(last_ms), int(limit), up == "1", int(tried_ms), account)
