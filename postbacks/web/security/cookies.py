"""Cookies that let somebody in: two names of each, of which a browser takes the first from HTTPS alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from starlette.datastructures import Headers
from starlette.requests import Request

if TYPE_CHECKING:
    from starlette.types import Scope


class Cookie(NamedTuple):
    """Cookie of this dashboard.

    Attributes:
        secure_name: its name over HTTPS.
        name: its name without.
        path: of the pages that it is sent to.
    """

    secure_name: str
    name: str
    path: str

    def read(self, scope: Scope) -> str:
        """Return its value in a request; empty where there is none."""
        return Request(scope).cookies.get(self.secure_name if is_secure(scope) else self.name, "")

    def header(self, scope: Scope, value: str) -> str:
        """Return the header that sets it."""
        name, secure = (self.secure_name, "; Secure") if is_secure(scope) else (self.name, "")
        return f"{name}={value}; Path={self.path}; HttpOnly; SameSite=Strict{secure}"


def is_secure(scope: Scope) -> bool:
    """Tell whether the browser speaks HTTPS, to this process or to the proxy in front of it."""
    return scope.get("scheme") == "https" or Headers(scope=scope).get("X-Forwarded-Proto", "") == "https"
