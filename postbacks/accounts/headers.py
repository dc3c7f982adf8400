"""Checks of an account's extra headers: no header injection, no header that postbacks sets itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from postbacks.errors import InvalidAccount
from postbacks.urls import read_url, redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_HEADER_TEXT = re.compile(r"[\x20-\x7e]+\Z")
#: Headers that postbacks or HTTP itself sets.
_RESERVED_HEADERS: Final = frozenset(
    [
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    ]
)

#: Limits that keep a request within the 8 KiB that servers take.
MAX_HEADERS: Final = 32
MAX_HEADER_CHARACTERS: Final = 4096


def check_headers(headers: Mapping[str, str]) -> None:
    """Check an account's extra headers.

    Raises:
        InvalidAccount: names the header that cannot be, or says that they are too many.
    """
    for name, text in headers.items():
        problem = _header_problem(name, text)
        if problem:
            raise InvalidAccount(f"The header {name[:60]!r} {problem}.")
    names = [name.lower() for name in headers]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InvalidAccount(f"The header {repeated!r} stands twice.")
    size = sum(len(name) + len(text) for name, text in headers.items())
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_CHARACTERS:
        raise InvalidAccount(
            f"The account would have {len(headers)} headers with {size} characters; "
            f"at most {MAX_HEADERS} with {MAX_HEADER_CHARACTERS} are allowed."
        )


def _header_problem(name: str, text: str) -> str | None:
    """Judge an extra header by RFC 9110 5.1 and 5.5, and by the headers that postbacks sets; None if it may be."""
    if not _HEADER_NAME.match(name):
        return "has a name that is no HTTP token"
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith(("postback-", "webhook-", "proxy-")):
        return "is one that postbacks sets itself"
    if name.lower() == "authorization":
        return "is a secret and has a field of its own: authorization"
    return _value_problem(text)


def check_authorization(text: str) -> None:
    """Check the value of an account's Authorization header; the error does not repeat it.

    Raises:
        InvalidAccount: it cannot be sent, or is too long.
    """
    problem = _value_problem(text)
    if problem is None and len(text) > MAX_HEADER_CHARACTERS:
        problem = f"has a value of {len(text)} characters; at most {MAX_HEADER_CHARACTERS} are allowed"
    if problem:
        raise InvalidAccount(f"The header Authorization {problem}.")


def check_no_user(*urls: str) -> None:
    """Check that no URL has a user, as a POST of an account with an Authorization header cannot carry both.

    Raises:
        InvalidAccount: names the URL that has a user.
    """
    for url in urls:
        if read_url(url).userinfo.strip(":"):
            raise InvalidAccount(
                f"The URL {redacted(url)!r} has a user, which becomes an Authorization header, and the account has "
                "one already: give one of the two (--header 'Authorization:' takes the header off)."
            )


def _value_problem(text: str) -> str | None:
    if not _HEADER_TEXT.match(text) or text != text.strip():
        return "has a value with characters that a header cannot carry"
    return None
