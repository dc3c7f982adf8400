"""Host of a request: a foreign name may resolve to 127.0.0.1, and its pages would be this dashboard's own origin."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.requests import Request

from postbacks.web import mistakes
from postbacks.web.config import is_loopback
from postbacks.web.layer import Layer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from postbacks.web.config import Config

#: Path that answers for any host: probes of containers ask by address.
PROBE: Final = "/healthz"
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)
#: Addresses to listen on that are nobody's name.
_ANY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


class Hosts(Layer):
    """Answers 421 to whoever asks for another host than a loopback name, ``--host``'s or one of POSTBACKS_WEB_HOSTS."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        super().__init__(app)
        own = set() if config.host in _ANY else {config.host.lower()}
        self._names = own | {name.lower() for name in config.settings.web_hosts}

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["path"] != PROBE:
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not self._is_ours(hosts[0]):
                sentence = "This dashboard does not answer for that host. POSTBACKS_WEB_HOSTS names those that it does."
                await mistakes.show(Request(scope), 421, sentence)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = match[1].strip("[]")
        return name in self._names or is_loopback(name)
