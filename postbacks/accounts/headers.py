"""Which extra headers an account may have: none that injects, none that is ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from postbacks.errors import InvalidAccount
from postbacks.urls import read_url, redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_HEADER_TEXT = re.compile(r"[\x20-\x7e]+\Z")
#: Headers that every POST has, or that would change what the request is.
_OWN_HEADERS: Final = frozenset(
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

#: Extra headers that an account may have, so that its requests stay of a size that servers take (8 KiB).
MAX_HEADERS: Final = 32
MAX_HEADER_CHARACTERS: Final = 4096


def check_headers(headers: Mapping[str, str]) -> None:
    """Check an account's extra headers.

    Raises:
        InvalidAccount: says which cannot be, or that they are too many.
    """
    for name, text in headers.items():
        fault = _header_fault(name, text)
        if fault:
            raise InvalidAccount(f"The header {name[:60]!r} {fault}.")
    names = [name.lower() for name in headers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidAccount(f"The header {twice!r} stands twice.")
    size = sum(len(name) + len(text) for name, text in headers.items())
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_CHARACTERS:
        raise InvalidAccount(
            f"These are {len(headers)} headers with {size} characters; "
            f"at most {MAX_HEADERS} with {MAX_HEADER_CHARACTERS} are allowed."
        )


def _header_fault(name: str, text: str) -> str | None:
    """Why an extra header cannot be: RFC 9110 5.1 and 5.5, and none of ours overridden."""
    if not _HEADER_NAME.match(name):
        return "has a name that is no HTTP token"
    if name.lower() in _OWN_HEADERS or name.lower().startswith(("postback-", "webhook-", "proxy-")):
        return "is one that postbacks sets itself"
    if name.lower() == "authorization":
        return "is a secret and has a field of its own: authorization"
    return _value_fault(text)


def check_authorization(text: str) -> None:
    """Check the value of an account's Authorization header; the error does not repeat it.

    Raises:
        InvalidAccount: it cannot be sent, or is too long.
    """
    fault = _value_fault(text)
    if fault is None and len(text) > MAX_HEADER_CHARACTERS:
        fault = f"has a value of {len(text)} characters; at most {MAX_HEADER_CHARACTERS} are allowed"
    if fault:
        raise InvalidAccount(f"The header Authorization {fault}.")


def check_no_user(*urls: str) -> None:
    """Check that no URL has a user, where an account has an Authorization header: a POST can carry one of them.

    Raises:
        InvalidAccount: says which URL has one.
    """
    for url in urls:
        if read_url(url).userinfo.strip(":"):
            raise InvalidAccount(
                f"The URL {redacted(url)!r} has a user, which becomes an Authorization header, and the account has "
                "one already: give one of the two (--header 'Authorization:' takes the header off)."
            )


def _value_fault(text: str) -> str | None:
    if not _HEADER_TEXT.match(text) or text != text.strip():
        return "has a value with characters that a header cannot carry"
    return None
