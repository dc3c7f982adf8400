"""Veil over texts of a customer's page: a receiver's answer may repeat the URL, and what its POST was authorized by.

A link is passed on and lies about. So nothing that it shows has a user, a password or a query of a URL, or a value of the
account's own headers, whoever repeats it.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from postbacks.errors import PostbacksError
from postbacks.transport.profile import Profile
from postbacks.urls import bare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postbacks.accounts import Account
    from postbacks.settings import Settings

#: Stands for what is not shown.
HIDDEN: Final = "…"
#: Characters from which on a secret is looked for in a text, and from which on the begin of one at its end.
_SHORTEST: Final = 3
_BEGIN: Final = 4
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE | re.ASCII)
#: Query and credentials of a URL or a header of any time: the account's own may have been others then.
_QUERY: Final = re.compile(r"\?[^\s\"'<>?]*=[^\s\"'<>]*", re.ASCII)
_CREDENTIALS: Final = re.compile(r"\b(Basic|Bearer|Digest)\s+[\w.+/=~-]{8,}", re.IGNORECASE | re.ASCII)
#: What ends a sentence, and stands behind a URL in it.
_BEHIND: Final = ".,;:)]}"


class Veil:
    """Veil over the secrets of some URLs and headers.

    Args:
        urls: as they are, with user, password and query.
        values: of headers.
    """

    def __init__(self, urls: Iterable[str], values: Iterable[str] = ()) -> None:
        secrets = {
            spelling
            for secret in [*(part for url in urls for part in _secrets(url)), *values]
            for spelling in _spellings(secret)
            if len(spelling) >= _SHORTEST
        }
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._secrets)) or r"(?!)", re.IGNORECASE)

    def text(self, text: str) -> str:
        """Return a text without them, and with its URLs bare; it may be cut off in the middle of one."""
        shown = _QUERY.sub(f"?{HIDDEN}", _URL.sub(_bare, text))
        shown = self._pattern.sub(HIDDEN, _CREDENTIALS.sub(rf"\1 {HIDDEN}", shown))
        lower = shown.lower()
        for secret in self._secrets:
            for length in range(min(len(secret), len(shown)), _BEGIN - 1, -1):
                if lower.endswith(secret[:length].lower()):
                    return shown[:-length] + HIDDEN
        return shown


def veil_of(account: Account | None, settings: Settings, now_ms: int, *urls: str) -> Veil:
    """Make the veil of an account.

    Args:
        account: as it is now; None where the store does not have it.
        settings: of the process.
        now_ms: the broker's time.
        urls: that were used beside the account's.
    """
    values: list[str] = []
    if account is not None:
        urls = (*urls, *account.urls())
        values += account.headers.values()
        with suppress(PostbacksError):  # without the key nothing was authorized from here
            for line in Profile.of(account, settings, now_ms).authorization:
                value = line.partition(": ")[2]
                values += [value, value.rpartition(" ")[2]]
    return Veil(urls, values)


def _bare(match: re.Match[str]) -> str:
    url = match.group().rstrip(_BEHIND)
    return bare(url) + match.group()[len(url) :]


def _secrets(url: str) -> Iterator[str]:
    """Yield what is secret of a URL: its password, as it is and as it is sent, and the values of its query."""
    try:
        parts = urlsplit(url)
    except ValueError:  # what of it is a password cannot be told
        yield url
        return
    userinfo = parts.netloc.rpartition("@")[0]
    if userinfo:
        yield userinfo
        yield userinfo.partition(":")[2]
        yield b64encode(unquote(userinfo).encode()).decode()
    if parts.query:
        yield parts.query
    for part in parts.query.split("&"):
        name, equals, value = part.partition("=")
        yield value if equals else name


def _spellings(secret: str) -> set[str]:
    """Return a secret as it stands in a URL, and as HTML, JSON (also PHP's) and forms write it."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    return plain | {
        spelling
        for text in plain
        for spelling in (
            quote(text, safe=""),
            quote_plus(text),
            escape(text),
            json.dumps(text)[1:-1],
            text.replace("/", "\\/"),
        )
    }
