"""Layer around the pages, which each request goes through; all else, as the application's start, passes it by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Layer:
    """Middleware for requests: a subclass answers one, or hands it on to ``_app``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take what the server has received."""
        if scope["type"] == "http":
            await self.answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        raise NotImplementedError
