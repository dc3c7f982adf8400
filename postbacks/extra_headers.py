"""Which extra headers an account may have: none that injects, none that is ours."""

from __future__ import annotations

import re
from typing import Final

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
        "authorization",
    ]
)

#: Extra headers that an account may have, so that its requests stay of a size that servers take (8 KiB).
MAX_HEADERS: Final = 32
MAX_HEADER_CHARACTERS: Final = 4096


def header_fault(name: str, text: str) -> str | None:
    """Why an extra header cannot be: RFC 9110 5.1 and 5.5, and none of ours overridden."""
    if not _HEADER_NAME.match(name):
        return "has a name that is no HTTP token"
    if name.lower() in _OWN_HEADERS or name.lower().startswith(("postback-", "webhook-", "proxy-")):
        return "is one that postbacks sets itself"
    if not _HEADER_TEXT.match(text) or text != text.strip():
        return "has a value with characters that a header cannot carry"
    return None
