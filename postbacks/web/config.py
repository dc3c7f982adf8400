"""Configuration of one web process: the settings, and where it listens."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from postbacks.errors import BadSetting
from postbacks.web.security import users

if TYPE_CHECKING:
    from postbacks.settings import Settings


@dataclass(frozen=True, slots=True)
class Config:
    """Configuration of one web process.

    Attributes:
        settings: of the process.
        host: address or name that it listens on.
        port: 0 takes a free one.
    """

    settings: Settings
    host: str = "127.0.0.1"
    port: int = 0

    @property
    def has_login(self) -> bool:
        """True where whoever comes must say who they are, or a proxy must."""
        settings = self.settings
        return bool(settings.web_users or settings.web_token.get_secret_value() or settings.web_proxy_header)

    @property
    def is_loopback(self) -> bool:
        """True where nobody but this machine's users can reach it."""
        return is_loopback(self.host)

    def check(self) -> None:
        """Refuse what nobody should start.

        Raises:
            BadSetting: strangers could come in, or nobody could; says what to set.
        """
        settings = self.settings
        if not self.host:
            raise BadSetting(
                "An address to listen on is empty: give 127.0.0.1, or 0.0.0.0 for all interfaces."
            )
        if settings.web_users:
            users.read(Path(settings.web_users))
        if bool(settings.web_proxy_header) != bool(settings.web_proxy_addresses):
            raise BadSetting(
                "POSTBACKS_WEB_PROXY_HEADER and POSTBACKS_WEB_PROXY_ADDRESSES go together: the header is believed from these "
                "addresses alone. Set both, or neither."
            )
        if not self.has_login and not self.is_loopback:
            raise BadSetting(
                f"On {self.host} others than this machine's users can reach the dashboard, and no login is set: make a user "
                "(postbacks web user add NAME --role admin --file FILE) and set POSTBACKS_WEB_USERS=FILE, or set "
                "POSTBACKS_WEB_TOKEN; or listen on 127.0.0.1."
            )


def is_loopback(host: str) -> bool:
    """Tell whether a host's name or address is this machine's own, wherever it is asked for."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
