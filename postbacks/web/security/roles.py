"""Roles: each may what those before it may. A handler names the one that it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from postbacks.settings import WEB_ROLES

#: Roles, from the one that may least.
ROLES: Final = WEB_ROLES
#: Role -> what it may beside what those before it may.
RIGHTS: Final = {
    "viewer": "look at everything, masked",
    "support": "reveal, ping, and resend up to 100 postbacks",
    "operator": "start jobs, pause, mute and cancel",
    "admin": "change accounts, make and withdraw customers' links, and forget persons",
}
#: Postbacks that ``support`` may resend at a time.
SUPPORT_RESENDS_MAX: Final = 100

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whoever asks.

    Attributes:
        name: for the journal.
        role: one of ``ROLES``.
    """

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Tell whether what this role may is allowed."""
        return ROLES.index(self.role) >= ROLES.index(role)


def public(handler: Handler) -> Handler:
    """Mark a handler that everybody may call, logged in or not; a test asks all others for ``needs``."""
    setattr(handler, "is_public", True)  # noqa: B010 - functions declare no attributes
    return handler


def viewer_of(request: Request) -> Viewer:
    """Return whoever asks; the session has found out.

    Raises:
        HTTPException: nobody has logged in (401).
    """
    viewer: Viewer | None = request.state.viewer
    if viewer is None:
        raise HTTPException(401, "Nobody is logged in here, or the session has ended.")
    return viewer


def check_role(viewer: Viewer, role: str, what: str) -> None:
    """Refuse what a role may not.

    Args:
        viewer: whoever asks.
        role: that it needs.
        what: it is, as a verb.

    Raises:
        HTTPException: their role may not (403).
    """
    if not viewer.may(role):
        raise HTTPException(
            403, f"{viewer.name} has the role {viewer.role}, which may not {what}: it needs the role {role}."
        )


def needs(role: str) -> Callable[[Handler], Handler]:
    """Let a handler be called by whoever has this role, or one that may more; refuse all others with 403."""
    assert role in ROLES

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def checked(request: Request) -> Response:
            check_role(viewer_of(request), role, "do this")
            return await handler(request)

        setattr(checked, "needs", role)  # noqa: B010 - functions declare no attributes; a test reads it
        return checked

    return decorate
