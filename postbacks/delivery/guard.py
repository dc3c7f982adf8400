"""The address guard: which numeric addresses a postback may be sent to.

Asked by libcurl for every address at the moment a socket is opened, so a name that resolves to
something else than a moment ago, or an address written in an odd form, gains nothing.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from postbacks.settings import Networks

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


@lru_cache(maxsize=4096)
def refusal(address: str, allowed: Networks) -> str | None:
    """Why an address must not be reached, or None where it may.

    Args:
        address: numeric, as the socket would use it; a zone id is ignored.
        allowed: networks that are reachable although they are not global.
    """
    numeric = ipaddress.ip_address(address.partition("%")[0])
    if any(numeric in network for network in allowed if network.version == numeric.version):
        return None
    inner = _embedded(numeric)
    if inner is not None:
        if any(inner in network for network in allowed if network.version == inner.version):
            return None
        rule = _special(inner)
        return f"{numeric} stands for {inner}: {rule}" if rule else None
    rule = _special(numeric)
    return f"{numeric}: {rule}" if rule else None


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
