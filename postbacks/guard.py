"""The address guard: addresses, ports and schemes that a postback may be sent to.

``refusal`` is called for every numeric address at the moment at which libcurl opens a socket. So a name that resolves to
another address than a moment ago, or an address in an odd form, does not pass. ``early_refusal`` judges a URL without
looking its name up: it gives a friendly error when the URL is set, and is never the only guard.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

from postbacks.settings import Networks, Settings
from postbacks.urls import read_url

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Networks that are not global unicast, and those that only look so: the IANA special-purpose address registries of IPv4
#: and IPv6 (RFC 6890 and its updates, to RFC 9780), and addresses of clouds' platforms by their vendors' documents.
#: Own table: ``ipaddress.is_global`` differs between Python versions and takes NAT64.
_SPECIAL: Final = tuple(
    (ipaddress.ip_network(network), rule)
    for network, rule in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),  # Alibaba Cloud: 100.100.100.200 has the metadata
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local and cloud metadata"),  # all clouds, 169.254.169.254 mostly
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),  # Oracle Cloud: 192.0.0.192 had the metadata
        ("192.0.2.0/24", "documentation"),
        # Services of whichever network is nearest: the registry calls them global, and no receiver is there.
        ("192.31.196.0/24", "AS112 name servers"),  # RFC 7535
        ("192.52.193.0/24", "multicast tunnels (AMT)"),  # RFC 7450
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112 name servers"),  # RFC 7534
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
        ("100:0:0:1::/64", "dummy"),  # RFC 9780
        ("2001::/23", "protocol assignments and Teredo"),
        ("2001:db8::/32", "documentation"),
        ("2620:4f:8000::/48", "AS112 name servers"),  # RFC 7534
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "unique local"),  # AWS fd00:ec2::254, Google fd20:ce::254, Oracle fd00:c1::a9fe:a9fe
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        # learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16: the host's agent and its secrets
        ("168.63.129.16/32", "Azure's host agent"),
        # cloud.google.com/vpc/docs/configure-private-google-access: routed inside of Google Cloud alone
        ("199.36.153.4/30", "Google Cloud's private endpoints"),
        ("199.36.153.8/30", "Google Cloud's private endpoints"),
        ("2600:2d00:2:1000::/56", "Google Cloud's private endpoints"),
        ("2600:2d00:2:2000::/56", "Google Cloud's private endpoints"),
        # cloud.ibm.com/docs/vpc, service endpoints: routed inside of IBM Cloud alone
        ("161.26.0.0/16", "IBM Cloud's private endpoints"),
        ("166.8.0.0/14", "IBM Cloud's private endpoints"),
    )
)
_GLOBAL_UNICAST_6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4: Final = ipaddress.IPv6Network("2002::/16")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
#: Upper half of an ISATAP address's interface identifier, with the bit "universal" set or not (RFC 5214 6.1).
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})


def refusal(address: str, port: int, settings: Settings) -> str | None:
    """Judge a numeric address and a port; return the reason why they must not be reached, or None if they may.

    Args:
        address: the address that the socket would connect to; a zone id is ignored.
        port: of the connection.
        settings: allowed and denied networks, allowed ports, NAT64 prefixes. A denial wins.
    """
    return _port_refusal(port, settings) or _network_refusal(
        address, settings.allowed_networks, settings.denied_networks, settings.nat64_prefixes
    )


@lru_cache(maxsize=4096)
def _network_refusal(address: str, allowed: Networks, denied: Networks, nat64: Networks) -> str | None:
    numeric = ipaddress.ip_address(address.partition("%")[0])
    inner, is_translated = _embedded(numeric, nat64)
    words = f"{numeric} stands for {inner}" if inner is not None else str(numeric)
    for network in denied:
        if numeric in network or (inner is not None and inner in network):
            return f"{words}: denied by POSTBACKS_DENIED_NETWORKS ({network})"
    if inner is None:
        judged: tuple[Address, ...] = (numeric,)
    elif any(numeric in network and network.prefixlen == network.max_prefixlen for network in allowed):
        return None  # A single allowed IPv6 address opens the IPv4 address behind it; a network does not.
    else:
        judged = (inner,) if is_translated else (inner, numeric)
    for judged_address in judged:
        if any(judged_address in network for network in allowed):
            continue
        if rule := _special(judged_address):
            return f"{words}: {rule}"
    return None


def early_refusal(url: str, settings: Settings) -> str | None:
    """Judge a URL without DNS; return the reason why it can never be reached, or None if it may be.

    The URL is read as it is sent: octal, hexadecimal, decimal and short forms of IPv4 are addresses, and so is a host
    that becomes one by percent-decoding.

    Raises:
        InvalidUrl: the URL cannot be sent to.
    """
    parts = read_url(url)
    if settings.https_only and parts.scheme != "https":
        return "only https is allowed (POSTBACKS_HTTPS_ONLY)"
    if parts.is_address or parts.is_local:
        return refusal("127.0.0.1" if parts.is_local else parts.host, parts.port, settings)
    return _port_refusal(parts.port, settings)


def setting_of(refused: str) -> str:
    """Return the setting that lifts a refusal: the one that the refusal names, or the one that opens networks."""
    name = re.search(r"POSTBACKS_[A-Z_]+", refused)
    return name[0] if name else "POSTBACKS_ALLOWED_NETWORKS"


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


def _embedded(numeric: Address, nat64: Networks) -> tuple[ipaddress.IPv4Address | None, bool]:
    """Read the IPv4 address that an IPv6 address stands for, and True if every packet to it goes there.

    Mapped, 6to4 and NAT64 addresses are translated on the way, whatever their network. A compatible or ISATAP address
    may be tunnelled to the IPv4 address, and may as well be an ordinary address of its network.
    """
    if not isinstance(numeric, ipaddress.IPv6Address):
        return None, False
    if numeric.ipv4_mapped is not None:
        return numeric.ipv4_mapped, True
    if numeric in _6TO4:
        return numeric.sixtofour, True
    for prefix in (_NAT64, *nat64):
        if numeric in prefix:
            return _translated(numeric, prefix.prefixlen), True
    low = ipaddress.IPv4Address(int(numeric) & 0xFFFF_FFFF)
    if numeric in _COMPATIBLE and int(numeric) > 1:
        return low, False
    if int(numeric) >> 32 & 0xFFFF_FFFF in _ISATAP:
        return low, False
    return None, False


def _translated(numeric: ipaddress.IPv6Address, prefix_bits: int) -> ipaddress.IPv4Address:
    """Read the IPv4 address that follows a NAT64 prefix, without bits 64 to 71 (RFC 6052 2.2)."""
    octets = numeric.packed
    if prefix_bits < 96:
        octets = octets[:8] + octets[9:]
    return ipaddress.IPv4Address(octets[prefix_bits // 8 :][:4])
