"""Forms of values that settings have beside numbers and words: how each is read from a text, and what is refused."""

from __future__ import annotations

import re
from base64 import b64decode
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, SecretStr

from postbacks.broker import sentinel
from postbacks.broker import url as broker_url

# -- URLs -----------------------------------------------------------------------------------

_HTTP_URL: Final = re.compile(r"https?://[^\s/?#]+(?:[/?#]\S*)?", re.ASCII)
_ORIGIN: Final = re.compile(r"https?://[\w.:\[\]-]+/?", re.ASCII)
_PROXY_URL: Final = re.compile(
    r"https?://(?:[\w.~%!$&'()*+,;=-]*(?::[\w.~%!$&'()*+,;=-]*)?@)?[\w.-]+(?::(\d{1,5}))?/?", re.ASCII
)
#: Databases that the history can stand in; ``history/engine.py`` reads the whole URL.
_HISTORY_URL: Final = re.compile(r"sqlite:///[^?]+|postgres(ql)?(\+psycopg)?://\S+", re.ASCII)


def _read_broker_url(text: str) -> str:
    text = text.strip()  # a variable that was filled from a file often ends with a new line
    scheme = text.partition("://")[0].lower()
    if "cluster" in scheme:
        raise ValueError("Celery 5.7 cannot use Redis Cluster; use one server, or several with Sentinel")
    if sentinel.is_sentinel(text):
        sentinel.parse(text)
    else:
        broker_url.parse(text)
    return text


def _read_history_url(text: str) -> str:
    text = text.strip()
    if text and not _HISTORY_URL.match(text):
        raise ValueError(
            "not sqlite:///FILE (four slashes for an absolute path) or postgresql://user:password@host/database"
        )
    return text


def _read_http_url(text: str) -> str:
    text = text.strip()
    if text and not _HTTP_URL.fullmatch(text):
        raise ValueError("not http://host/path or https://host/path")
    return text


def _read_origin(text: str) -> str:
    if text and not _ORIGIN.fullmatch(text):
        raise ValueError("give a scheme, a host and perhaps a port: https://postbacks.example")
    return text.rstrip("/")


def _read_proxy_url(text: str) -> str:
    match = _PROXY_URL.fullmatch(text)
    if text and (match is None or not 1 <= int(match[1] or 80) <= 65_535):
        raise ValueError(
            "not http://host:port or https://host:port; in a user or password encode what is no letter or digit"
        )
    return text


BrokerUrl = Annotated[str, AfterValidator(_read_broker_url)]
HistoryUrl = Annotated[str, AfterValidator(_read_history_url)]
#: URL of a receiver; the transport reads the whole of it.
HttpUrl = Annotated[str, AfterValidator(_read_http_url)]
#: Scheme, host and port of a site.
Origin = Annotated[str, AfterValidator(_read_origin)]
ProxyUrl = Annotated[str, AfterValidator(_read_proxy_url)]


# -- keys -----------------------------------------------------------------------------------

#: Characters of a key below which it could be guessed.
MIN_KEY: Final = 16


def _check_key(key: SecretStr) -> SecretStr:
    if 0 < len(key.get_secret_value()) < MIN_KEY:
        raise ValueError(f"too short to be a key: give {MIN_KEY} random characters or more")
    return key


def _check_signing_secret(secret: SecretStr) -> SecretStr:
    if text := secret.get_secret_value():
        try:
            b64decode(text.removeprefix("whsec_"), validate=True)
        except ValueError:
            raise ValueError("not whsec_ and base64; `openssl rand -base64 32` makes one") from None
    return secret


Key = Annotated[SecretStr, AfterValidator(_check_key)]
SigningSecret = Annotated[SecretStr, AfterValidator(_check_signing_secret)]


# -- networks, ports and hosts --------------------------------------------------------------

#: Bits of a NAT64 prefix (RFC 6052 2.2).
NAT64_LENGTHS: Final = frozenset({32, 40, 48, 56, 64, 96})
#: Host's name or address, as the dashboard compares it.
_HOST: Final = re.compile(r"[a-z0-9_.-]+|\[?[0-9a-f:.]+\]?", re.ASCII)


def _read_networks(value: object) -> object:
    if isinstance(value, str):
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
    return value


def _check_nat64(prefixes: tuple[IPv4Network | IPv6Network, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    for prefix in prefixes:
        if prefix.version != 6 or prefix.prefixlen not in NAT64_LENGTHS:
            raise ValueError(f"{prefix} is no IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits (RFC 6052 2.2)")
    return prefixes


def _read_ports(value: object) -> object:
    if not isinstance(value, str):
        return value
    ranges = []
    for part in value.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise ValueError(f"{part.strip()!r} is no port or range of ports (443, 1024-65535)")
        ranges.append((first, last))
    return tuple(ranges)


def _read_hosts(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    if bad := [name for name in names if not _HOST.fullmatch(name)]:
        raise ValueError(f"{bad[0]!r} is no host's name: leave out scheme, port and path")
    return tuple(name.strip("[]") for name in names)


Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_read_networks)]
Nat64Prefixes = Annotated[Networks, AfterValidator(_check_nat64)]
#: First and last port of each range.
Ports = Annotated[tuple[tuple[int, int], ...], BeforeValidator(_read_ports)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_read_hosts)]


# -- words ----------------------------------------------------------------------------------

#: Ratios above 100:1 have no further effect.
MAX_GROUP_WEIGHT: Final = 100
_WEIGHT: Final = re.compile(r"(\w+)\s*=\s*(\d{1,3})", re.ASCII)

#: Roles of the dashboard, from the one that may least.
WebRole = Literal["viewer", "support", "operator", "admin"]
WEB_ROLES: Final[tuple[str, ...]] = get_args(WebRole)


def _read_opt_out_words(value: object) -> object:
    if not isinstance(value, str):
        return value
    words = tuple(filter(None, map(str.strip, value.split(","))))
    if bad := [word for word in words if not any(map(str.isalnum, word))]:
        raise ValueError(
            f"{bad[0]!r} has no letter and no digit, so that any message of such signs would be one"
        )
    return words


OptOutWords = Annotated[tuple[str, ...], BeforeValidator(_read_opt_out_words)]


def complete_weights(text: str, default: str) -> str:
    """Give groups that a text does not name the weight that they have in the default.

    Raises:
        ValueError: a part of the text is no weight of a group.
    """
    weights: dict[str, str] = dict(_WEIGHT.findall(default))
    for part in filter(str.strip, text.split(",")):
        match = _WEIGHT.fullmatch(part.strip())
        if match is None or match[1] not in weights or int(match[2]) > MAX_GROUP_WEIGHT:
            raise ValueError(
                f"{part.strip()!r} is no weight of a group: write {', '.join(weights)} "
                f"with = and 0 to {MAX_GROUP_WEIGHT} (general=2,mo=2,mt=1)"
            )
        weights[match[1]] = match[2]
    return ",".join(f"{group}={weight}" for group, weight in weights.items())
