"""User whom a proxy names: in one header, and from the proxy's own addresses alone."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

from postbacks.web.security.users import is_name

if TYPE_CHECKING:
    from starlette.types import Scope

    from postbacks.settings import Settings


def is_proxy(scope: Scope, settings: Settings) -> bool:
    """Tell whether a request has come from the proxy's address."""
    try:
        address: Any = ip_address((scope.get("client") or ("", 0))[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in settings.web_proxy_addresses)


def user_of(scope: Scope, settings: Settings) -> str:
    """Return the name that the proxy gives; empty where another one asks, or it names nobody, or two."""
    if not settings.web_proxy_header or not is_proxy(scope, settings):
        return ""
    names = Headers(scope=scope).getlist(settings.web_proxy_header)
    if len(names) != 1:
        return ""
    name = names[0].encode("latin-1").decode("utf-8", "replace").strip()
    return name if is_name(name) else ""


def address_of(scope: Scope, settings: Settings) -> str:
    """Return the address of whoever asks: the last one that the proxy has seen, or the connection's own."""
    peer: str = (scope.get("client") or ("", 0))[0]
    if not is_proxy(scope, settings):
        return peer
    seen = ",".join(Headers(scope=scope).getlist("X-Forwarded-For")).rpartition(",")[2].strip()
    return seen or peer


def is_forwarded(scope: Scope) -> bool:
    """Tell whether a request says that a proxy has passed it on."""
    headers = Headers(scope=scope)
    return any(name in headers for name in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"))
