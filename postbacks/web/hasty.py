"""HTTP/1.1 of one connection, for callers that send a whole request in time: others would hold all connections.

uvicorn ends a connection that stands idle between two requests, and waits without an end for the first one, for the rest of
a header and for the rest of a form.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds between two looks at a connection: what has not come within one to two of these does not come.
LOOK_S: Final = 15.0
#: Nobody was waited for at the last look.
_NO_ONE: Final = object()


class Hasty(H11Protocol):
    """Protocol that hangs up on whoever does not send a request, or the rest of one."""

    _awaited: object = _NO_ONE
    _look_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """End looking."""
        if self._look_timer is not None:
            self._look_timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Hang up where the caller has kept this process waiting since the last look."""
        request = self.cycle
        is_awaited = request is None or request.response_complete or request.more_body
        if is_awaited and self._awaited is request:
            self.transport.close()
            return
        self._awaited = request if is_awaited else _NO_ONE
        self._look_timer = self.loop.call_later(LOOK_S, self._look)
