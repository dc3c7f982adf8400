"""Customers' URLs: what may be one, its endpoint, and how it is shown.

Form only: which addresses may be reached is decided when the socket is opened (``guard.py``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, urlsplit

from postbacks.errors import InvalidUrl

#: Longest URL that is taken, in characters.
MAX_URL_LENGTH: Final = 2048

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
#: Cannot be written as UTF-8, so it could be kept nowhere.
_SURROGATE = re.compile("[\ud800-\udfff]")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def check_url(url: object) -> str:
    """Check the form of a URL that postbacks are sent to.

    Returns:
        The URL as given.

    Raises:
        InvalidUrl: no text, too long, not absolute, not http(s), no host, or a port that cannot be.
    """
    if not isinstance(url, str):
        raise InvalidUrl(f"A URL is text, not {type(url).__name__}.")
    if len(url) > MAX_URL_LENGTH:
        raise InvalidUrl(f"The URL has {len(url)} characters; at most {MAX_URL_LENGTH} are allowed.")
    shown = redacted(url)
    if _UNPRINTABLE.search(url):
        raise InvalidUrl(f"The URL {shown!r} has a space or control character in it; encode it (%20).")
    if _SURROGATE.search(url):
        raise InvalidUrl(f"The URL {shown!a} has half a character in it and is no Unicode text.")
    if "\\" in url:
        raise InvalidUrl(
            f"The URL {shown!r} has a backslash in it, which some read as a slash; encode it (%5C)."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # urllib's own words quote what may be a password
        raise InvalidUrl(
            "The URL cannot be read: its host or port is none. In a user or password encode / ? # and @ "
            "(%2F %3F %23 %40)."
        ) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise InvalidUrl(f"The URL {shown!r} is no absolute http or https URL (https://host/path).")
    if not parts.hostname:
        raise InvalidUrl(f"The URL {shown!r} has no host (https://host/path).")
    if port == 0:
        raise InvalidUrl(f"The URL {shown!r} has port 0, which nothing can listen on.")
    try:
        parts.hostname.encode("idna") if not parts.hostname.isascii() else None
    except UnicodeError as error:
        raise InvalidUrl(f"The URL {shown!r} has a host that is no domain name: {error}.") from None
    return url


@lru_cache(maxsize=10_000)
def endpoint_of(url: str) -> str:
    """Scheme, host and port of a URL: what one connection serves."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{(parts.hostname or '').rstrip('.')}:{port}"


def redacted(url: str) -> str:
    """A URL as logs, listings and errors show it: no user, no password, no values in the query."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a password that is not encoded may stand anywhere in it
        return "(unreadable URL)"
    if "@" in url and (parts.scheme not in _DEFAULT_PORTS or not parts.netloc or "@" not in parts.netloc):
        return "(unreadable URL)"  # what stands before the @ may be a password
    host = parts.netloc.rpartition("@")[2]
    query = re.sub(r"=[^&]*", "=…", parts.query) if parts.query else ""
    return SplitResult(parts.scheme, host, parts.path, query, "").geturl()
