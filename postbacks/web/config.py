"""Configuration of one web process: the settings, and where it listens."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

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
        """True where whoever comes must say who they are."""
        return False

    @property
    def is_loopback(self) -> bool:
        """True where nobody but this machine's users can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Tell whether a host's name or address is this machine's own, wherever it is asked for."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
