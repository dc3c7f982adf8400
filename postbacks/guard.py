"""The address guard: which addresses, ports and schemes a postback may be sent to.

``refusal`` is asked by libcurl for every numeric address at the moment a socket is opened, so a name
that resolves to something else than a moment ago, or an address written in an odd form, gains
nothing. ``early_refusal`` says what can be told of a URL without looking its name up: a friendly
error when it is set, and never the only guard.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from postbacks.settings import Networks, Settings
from postbacks.urls import read_url

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: What is not global unicast, by the IANA special-purpose address registries (RFC 6890 and its
#: updates). Own table: ``ipaddress.is_global`` differs between Python versions and takes NAT64.
_SPECIAL: Final = tuple(
    (ipaddress.ip_network(network), rule)
    for network, rule in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local and cloud metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discard"),
        ("2001::/23", "protocol assignments and Teredo"),
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "unique local"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_UNICAST_6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4: Final = ipaddress.IPv6Network("2002::/16")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


def refusal(address: str, port: int, settings: Settings) -> str | None:
    """Why a numeric address and port must not be reached, or None where they may.

    Args:
        address: numeric, as the socket would use it; a zone id is ignored.
        port: of the connection.
        settings: allowed and denied networks, allowed ports. A denial wins.
    """
    return _port_refusal(port, settings) or _network_refusal(
        address, settings.allowed_networks, settings.denied_networks
    )


@lru_cache(maxsize=4096)
def _network_refusal(address: str, allowed: Networks, denied: Networks) -> str | None:
    numeric = ipaddress.ip_address(address.partition("%")[0])
    inner = _embedded(numeric)
    shown = f"{numeric} stands for {inner}" if inner is not None else str(numeric)
    faces: tuple[Address, ...] = (numeric,) if inner is None else (numeric, inner)
    for face in faces:
        for network in denied:
            if face in network:
                return f"{shown}: denied ({network})"
    if any(numeric in network for network in allowed) and inner is None:
        return None
    # An IPv6 network does not open the IPv4 addresses that may stand behind it; a single address does.
    if inner is not None and any(
        inner in n or (numeric in n and n.prefixlen == n.max_prefixlen) for n in allowed
    ):
        return None
    rule = _special(inner) if inner is not None else None
    if inner is None or numeric in _COMPATIBLE:
        rule = rule or _special(numeric)
    return f"{shown}: {rule}" if rule else None


def early_refusal(url: str, settings: Settings) -> str | None:
    """Why a URL can never be reached, as far as that can be told without DNS; None where it may be.

    The URL is read as it is sent: octal, hexadecimal, decimal and short forms of IPv4 are addresses, too, and so
    is what becomes one by percent-decoding.

    Raises:
        InvalidUrl: it cannot be sent to.
    """
    wanted = read_url(url)
    if settings.https_only and wanted.scheme != "https":
        return "only https is allowed (POSTBACKS_HTTPS_ONLY)"
    if wanted.is_address or wanted.is_local:
        return refusal("127.0.0.1" if wanted.is_local else wanted.host, wanted.port, settings)
    return _port_refusal(wanted.port, settings)


def _port_refusal(port: int, settings: Settings) -> str | None:
    if any(first <= port <= last for first, last in settings.allowed_ports):
        return None
    return f"port {port} is not among POSTBACKS_ALLOWED_PORTS"


def _special(numeric: Address) -> str | None:
    for network, rule in _SPECIAL:
        if network.version == numeric.version and numeric in network:
            return f"{rule} ({network})"
    if numeric.version == 6 and numeric not in _GLOBAL_UNICAST_6:
        return "not global unicast"
    return None


def _embedded(numeric: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64, 6to4."""
    if not isinstance(numeric, ipaddress.IPv6Address):
        return None
    if numeric.ipv4_mapped is not None:
        return numeric.ipv4_mapped
    if numeric in _6TO4:
        return numeric.sixtofour
    if numeric in _NAT64 or (numeric in _COMPATIBLE and int(numeric) > 1):
        return ipaddress.IPv4Address(int(numeric) & 0xFFFFFFFF)
    return None
