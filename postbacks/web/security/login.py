"""Login: a name and a password of the file of users, or a token; each wrong one makes the next wait."""

from __future__ import annotations

import asyncio
import hmac
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.exceptions import HTTPException

from postbacks.web.security import passwords
from postbacks.web.security.roles import Viewer
from postbacks.web.security.slowing import Slowing
from postbacks.web.security.users import Users

if TYPE_CHECKING:
    from postbacks.settings import Settings

#: Name in the journal of whoever has logged in by the token.
TOKEN_USER: Final = "token"  # noqa: S105 - a name


#: Logins that wait for their check at most.
WAITING_MAX: Final = 20


class Identity(NamedTuple):
    """Whoever has logged in.

    Attributes:
        viewer: name and role.
        mark: of what they have logged in by: with another one their sessions have ended.
    """

    viewer: Viewer
    mark: str


class Login:
    """Logins of one web process.

    Args:
        settings: with the file of users and the token.
    """

    def __init__(self, settings: Settings) -> None:
        self._token = settings.web_token.get_secret_value().strip()
        self._users = Users(settings.web_users) if settings.web_users else None
        self._proxy_role: str = settings.web_proxy_role
        # A hash takes 32 MB and a while: a hundred tries at once take turns, and pages are read meanwhile.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postbacks-login")
        self._waiting = 0
        self.slowing = Slowing()

    @property
    def takes_passwords(self) -> bool:
        """True where there is a file of users."""
        return self._users is not None

    @property
    def takes_token(self) -> bool:
        """True where there is a token."""
        return bool(self._token)

    async def check(self, name: str, secret: str) -> Identity | None:
        """Check a password, or the token where no name is given; None where it is wrong. It takes as long for all names.

        Raises:
            HTTPException: too many are checked already (429).
        """
        if self._waiting >= WAITING_MAX:
            raise HTTPException(429, "Too many log in at once; try again in a moment.", {"Retry-After": "2"})
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._check, name, secret)
        finally:
            self._waiting -= 1

    def _check(self, name: str, secret: str) -> Identity | None:
        if not name and self._token:
            is_right = hmac.compare_digest(secret.strip().encode("utf-8", "replace"), self._token.encode())
            return self.by_token() if is_right else None
        user = self._users.find(name) if self._users else None
        is_right = passwords.matches(secret, user.hash if user else "")
        return Identity(Viewer(user.name, user.role), user.mark) if user and is_right else None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def by_token(self) -> Identity | None:
        """Return whoever has the token; None where none is set."""
        mark = sha256(self._token.encode()).hexdigest()[:16]
        return Identity(Viewer(TOKEN_USER, "admin"), mark) if self._token else None

    def find(self, name: str, mark: str) -> Viewer | None:
        """Return the owner of a session as they are now; None where they are out, or log in by something else by now."""
        if name == "":
            identity = self.by_token()
        else:
            user = self._users.find(name) if self._users else None
            identity = Identity(Viewer(user.name, user.role), user.mark) if user and user.hash else None
        return identity.viewer if identity and hmac.compare_digest(identity.mark, mark) else None

    def of_proxy(self, name: str) -> Viewer:
        """Return whoever the proxy names: with the role that the file gives, else with the setting's."""
        user = self._users.find(name) if self._users else None
        return Viewer(name, user.role if user else self._proxy_role)
