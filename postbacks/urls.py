"""Customers' URLs: one reader for setting, checking and sending them, and their form in logs.

A host is read as browsers read it (UTS 46, non-transitional, and the WHATWG's rules for addresses). A host that libcurl
or a name server cannot use is refused. The form alone is judged here; ``guard.py`` decides which addresses may be
reached, when the socket is opened.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from ipaddress import IPv6Address
from socket import inet_aton, inet_ntoa
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

import idna

from postbacks.errors import InvalidUrl

#: Longest URL that is taken, in characters.
MAX_URL_LENGTH: Final = 2048
#: Limits of RFC 1035 2.3.4 for a name that is written with dots.
_MAX_LABEL_LENGTH: Final = 63
_MAX_HOST_LENGTH: Final = 253

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
#: Halves of characters, which cannot be written as UTF-8 and so be kept nowhere.
_SURROGATE = re.compile("[\ud800-\udfff]")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: Scheme, authority, and path with query; a fragment is not sent.
_ABSOLUTE = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE | re.ASCII)
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
#: ASCII characters that browsers, libcurl or the C library's resolver refuse in a host.
_NO_HOST_CHARACTER = re.compile(r"[\x00-,/:-@\[-^`{-\x7f]")
#: Last label of a host that browsers take for an IPv4 address (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Name of a network interface, of which libcurl takes 15 characters.
_ZONE = re.compile(r"[A-Za-z0-9._~-]{1,15}")


class Url(NamedTuple):
    """Parts of a customer's URL.

    Attributes:
        scheme: ``http`` or ``https``.
        userinfo: user and password as they were written; empty where there are none.
        host: in the form in which it is sent: an ASCII name in lower case, an IPv4 address, or an IPv6 address without
            brackets.
        port: of the connection.
        target: path and query as they were written.
        is_address: True if the host is an address.
    """

    scheme: str
    userinfo: str
    host: str
    port: int
    target: str
    is_address: bool

    @property
    def is_local(self) -> bool:
        """True if the host is a name of this machine (RFC 6761 6.3)."""
        return self.host == "localhost" or self.host.endswith(".localhost")

    @property
    def origin(self) -> str:
        """Scheme, host and port in the form in which they are sent: the port only if it is not the scheme's default."""
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def endpoint(self) -> str:
        """Scheme, host and port: POSTs to one endpoint share connections."""
        return f"{self.scheme}://{self.host}:{self.port}"


def read_url(url: object) -> Url:
    """Read a URL that postbacks are sent to.

    Raises:
        InvalidUrl: it is no text, too long, not absolute, not http(s), or has a host or port that cannot be.
    """
    if not isinstance(url, str):
        raise InvalidUrl(f"A URL is text, not {type(url).__name__}.")
    if len(url) > MAX_URL_LENGTH:
        raise InvalidUrl(f"The URL has {len(url)} characters; at most {MAX_URL_LENGTH} are allowed.")
    redacted_url = redacted(url)
    if _UNPRINTABLE.search(url):
        raise InvalidUrl(f"The URL {redacted_url!r} has a space or control character in it; encode it (%20).")
    if _SURROGATE.search(url):
        raise InvalidUrl(f"The URL {redacted_url!a} has half a character in it and is no Unicode text.")
    if "\\" in url:
        raise InvalidUrl(
            f"The URL {redacted_url!r} has a backslash in it, which some read as a slash; encode it (%5C)."
        )
    absolute = _ABSOLUTE.match(url)
    if absolute is None:
        raise InvalidUrl(f"The URL {redacted_url!r} is no absolute http or https URL (https://host/path).")
    scheme, authority, target = absolute[1].lower(), absolute[2], absolute[3]
    userinfo, _, address = authority.rpartition("@")
    host_and_port = _HOST_AND_PORT.fullmatch(address)
    port = int(host_and_port[2] or _DEFAULT_PORTS[scheme]) if host_and_port else -1
    if host_and_port is None or port > 65_535:  # not quoted: it may be a part of a password
        raise InvalidUrl(
            "The URL cannot be read: its host or port is none. In a user or password encode / ? # and @ "
            "(%2F %3F %23 %40)."
        )
    if not host_and_port[1]:
        raise InvalidUrl(f"The URL {redacted_url!r} has no host (https://host/path).")
    if port == 0:
        raise InvalidUrl(f"The URL {redacted_url!r} has port 0, which nothing can listen on.")
    try:
        host, is_address = _read_host(host_and_port[1])
    except _HostError as error:
        raise InvalidUrl(f"The URL {redacted_url!r} has a host that is no domain name: {error}.") from None
    return Url(scheme, userinfo, host, port, target, is_address)


def check_url(url: str) -> str:
    """Check the form of a URL that postbacks are sent to.

    Returns:
        The URL as given.

    Raises:
        InvalidUrl: see ``read_url``.
    """
    read_url(url)
    return url


def check_stored_url(url: str) -> str:
    """Check a URL of a stored account, which may be older than this reader: an http or https URL passes.

    Postbacks to a URL that cannot be sent to die at their POSTs, with the reason, and are kept. Refusing the URL here
    would be worse: the account could not be read, and one of an application's store would stop all others.

    Returns:
        The URL as given.

    Raises:
        InvalidUrl: it is no absolute http or https URL, or no Unicode text.
    """
    if not _ABSOLUTE.match(url) or _SURROGATE.search(url):
        read_url(url)
    return url


@lru_cache(maxsize=10_000)
def endpoint_of(url: str) -> str:
    """Return scheme, host and port of a URL; empty for a URL that cannot be sent to, as rows of older versions have."""
    try:
        return read_url(url).endpoint
    except InvalidUrl:
        return ""


class _HostError(ValueError):
    """Raised when a host cannot be; says why."""


@lru_cache(maxsize=10_000)
def _read_host(written: str) -> tuple[str, bool]:
    """Read a host; return the form in which it is sent, and True if it is an address."""
    if written.startswith("["):
        return _ipv6(written[1:-1]), True
    try:
        text = unquote_to_bytes(written).decode()
    except UnicodeDecodeError:
        raise _HostError("its %-encoded bytes are no UTF-8") from None
    host = _ascii_name(text)
    is_address = _NUMBER.fullmatch(host.rpartition(".")[2]) is not None
    if is_address:
        try:
            host = inet_ntoa(inet_aton(host))
        except OSError:
            raise _HostError("it ends in a number and is no IPv4 address") from None
    if not text.isascii() and (is_address or host.rpartition(".")[2] == "localhost"):
        # Nobody writes an address or localhost in other characters but to hide it.
        raise _HostError(f"it stands for {host} in other characters")
    return host, is_address


def _ipv6(text: str) -> str:
    numeric, percent, zone = text.partition("%")
    try:
        address = IPv6Address(numeric)
    except ValueError:
        raise _HostError("what stands in its brackets is no IPv6 address") from None
    zone = zone.removeprefix("25")  # RFC 6874: the % itself is encoded; many write it plain
    if percent and not _ZONE.fullmatch(zone):
        raise _HostError("the zone of its IPv6 address is no name of a network interface")
    low = int(address) & 0xFFFF_FFFF  # written by hand, as Python 3.13 writes a mapped address in another way
    short = f"::ffff:{low >> 16:x}:{low & 0xFFFF:x}" if address.ipv4_mapped else address.compressed
    return short + (f"%{zone}" if percent else "")


def _ascii_name(text: str) -> str:
    """Convert a name to ASCII as browsers do (UTS 46 4, the WHATWG's parameters), without the root's dot.

    The ``idna`` package has the tables and the checks of a label; its own ``encode`` is IDNA 2008, which refuses
    emoji and other characters that browsers send.
    """
    if len(text.removesuffix(".")) > _MAX_HOST_LENGTH:
        raise _HostError(f"it has {len(text)} characters; at most {_MAX_HOST_LENGTH} can be looked up")
    for character in text:
        try:
            mapped = idna.uts46_remap(character, std3_rules=False)
        except idna.IDNAError:
            raise _HostError(f"it has {_named(character)} in it") from None
        if _NO_HOST_CHARACTER.search(mapped):
            raise _HostError(f"it has {_named(character)} in it")
    labels = idna.uts46_remap(text, std3_rules=False).removesuffix(".").split(".")
    if "" in labels:
        raise _HostError("a part of it between dots is empty")
    host = ".".join(_ascii_label(_unicode_label(label)) for label in labels)
    if host.startswith("-"):  # the C library's resolver does not look such a name up
        raise _HostError(f"it begins with {_named('-')}")
    if len(host) > _MAX_HOST_LENGTH:
        raise _HostError(
            f"it has {len(host)} characters as it is sent; at most {_MAX_HOST_LENGTH} can be looked up"
        )
    return host


def _unicode_label(label: str) -> str:
    """Decode a label to Unicode, and check its characters."""
    text = label
    if label.startswith("xn--"):
        try:
            text = label[4:].encode("ascii").decode("punycode")
            as_is = not text.isascii() and idna.uts46_remap(text, std3_rules=False) == text
        except (UnicodeError, OverflowError):
            as_is = False
        if not as_is or _ascii_label(text) != label:
            raise _HostError(f"its part {label!a} stands for no Unicode text")
    if unicodedata.category(text[0]).startswith("M"):
        raise _HostError(f"a part of it begins with {_named(text[0])}")
    for position, character in enumerate(text):
        if character in "\u200c\u200d" and not _joins(text, position):
            raise _HostError(f"it has {_named(character)} where nothing is joined")
        if unicodedata.bidirectional(character) in {"R", "AL", "AN"} and not _has_one_direction(text):
            raise _HostError(
                f"its part {text!a} mixes directions of writing, beside {_named(character)} (RFC 5893)"
            )
    return text


def _joins(label: str, position: int) -> bool:
    try:
        return idna.valid_contextj(label, position)
    except ValueError:  # it stands beside a character that this Python does not know
        return False


def _has_one_direction(label: str) -> bool:
    try:
        return idna.check_bidi(label)
    except idna.IDNAError:
        return False


def _ascii_label(text: str) -> str:
    label = text if text.isascii() else "xn--" + text.encode("punycode").decode()
    if len(label) > _MAX_LABEL_LENGTH:
        raise _HostError(
            f"a part of it has {len(label)} characters as it is sent; at most {_MAX_LABEL_LENGTH} can be looked up"
        )
    return label


def _named(character: str) -> str:
    """Name a character, which may be unprintable, by its code point and Unicode name."""
    return f"{character!r} (U+{ord(character):04X} {unicodedata.name(character, 'without a name')})"


def redacted(url: str) -> str:
    """Return a URL as logs, listings and errors show it: no user, no password, no values in the query."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a password that is not encoded may stand anywhere in the URL
        return "(unreadable URL)"
    if "@" in url and (parts.scheme not in _DEFAULT_PORTS or not parts.netloc or "@" not in parts.netloc):
        return "(unreadable URL)"  # the text before the @ may be a password
    host = parts.netloc.rpartition("@")[2]
    query = re.sub(r"=[^&]*", "=…", parts.query) if parts.query else ""
    return SplitResult(parts.scheme, host, parts.path, query, "").geturl()


def bare(url: str) -> str:
    """Return a URL as a customer's page shows it: without user, password, query and fragment.

    Args:
        url: as it is, or as ``redacted`` has returned it.
    """
    return redacted(url).partition("?")[0]
