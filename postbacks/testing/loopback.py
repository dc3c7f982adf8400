"""Guard of a test run: a broker that is not on this machine's loopback is refused, as its customers are real."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Final

_VARIABLE: Final = "POSTBACKS_BROKER_URL"


def why_refused() -> str:
    """Say why the broker that the environment names is refused in a test run, and what to do; "" if it is not.

    Nothing is looked up and no connection is made. A URL that cannot be read is refused, as nobody can say where it is.
    """
    for name, value in os.environ.items():
        url = value.strip()
        if name.upper() != _VARIABLE or not url:  # settings are read in any case, too
            continue
        from postbacks.broker.url import redacted_broker_url  # noqa: PLC0415 - few test runs have the variable

        try:
            strangers = [host for host in _hosts(url) if not _is_loopback(host)]
        except ValueError as error:
            return f"{_VARIABLE} cannot be read ({error}), so nobody knows where the tests would send to. {_INSTEAD}"
        if strangers:
            return (
                f"{_VARIABLE} is {redacted_broker_url(url)}, and {strangers[0]} is not this machine's loopback: what the "
                f"tests send there would go to real customers. {_INSTEAD}"
            )
    return ""


_INSTEAD: Final = (
    f"Unset {_VARIABLE}: captured_postbacks() and the fixture postbacks_stack need none. Or write "
    "postbacks_broker = allow into pytest's ini file, if this broker is one for tests."
)


def _hosts(url: str) -> list[str]:
    """List the hosts that a broker URL names: none of a Unix socket, several of Sentinel.

    Raises:
        ValueError: it cannot be one; the sentence holds no password.
    """
    if url.startswith("sentinel://"):
        from postbacks.broker import sentinel  # noqa: PLC0415 - with redis-py, which the other forms do not need

        return [host for host, _ in sentinel.parse(url).hosts]
    from postbacks.broker.url import parse  # noqa: PLC0415

    host = parse(url).host
    return [host] if host else []


def _is_loopback(host: str) -> bool:
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False  # a name is not looked up: what it leads to changes
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
