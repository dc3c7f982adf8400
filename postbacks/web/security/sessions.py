"""Sessions: who asks, found out before any page is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks.operate.identity import current_user
from postbacks.web.security.roles import Viewer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from postbacks.web.config import Config


class Sessions:
    """Sets ``request.state.viewer``."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["viewer"] = Viewer(current_user(), "admin")
        await self._app(scope, receive, send)
