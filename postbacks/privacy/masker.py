"""Masks of what is personal: numbers, e-mail addresses and texts as people are shown them.

The suffix is a keyed hash of the value in its one spelling (``spelling.py``), so that two rows of one person can be
seen as one, and nobody without the key can say of which person.
"""

from __future__ import annotations

import hmac
import json
import re
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus, urlsplit
from xml.sax.saxutils import escape, unescape

from postbacks.logs import unquoted
from postbacks.privacy import tags
from postbacks.privacy.spelling import canonical
from postbacks.urls import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Digits of a number up to which it is a short code, which is nobody's.
SHORT_CODE_MAX: Final = 6
#: Digits that are shown at a number's begin and at its end, and how many stay hidden in any case.
_HEAD, _TAIL, _HIDDEN = 4, 2, 5
#: Letters of a suffix: Crockford's, without those that are read as another.
_LETTERS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_SUFFIX_LETTERS: Final = 4

#: Digits from which on a number in a reason is a person's; shorter ones are tickets' (``Masker.why``).
_TYPED_MIN: Final = 10

#: What looks like a number and is none, then an address, then a number: in strangers' words, and cut off anywhere.
_PERSONAL: Final = re.compile(
    r"(?P<kept>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?!\d)"
    r"|(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]))"
    r"|(?P<email>[^\s@…<>()\[\]{}\"',;:=&?/]{1,64}(?:@|%40|&#64;|&#x40;)[\w-]+(?:\.[\w-]+)*)"
    r"|(?P<number>\+?(?:(?<![\w-])\(?\d(?:[ \t\u00a0().\-/\u2010-\u2015]{0,3}\d){6,}(?![\w-])|\d{7,}))",
    re.IGNORECASE,
)
#: Element of a document that has text alone; in a piece of one, its end may be cut off.
_ELEMENT: Final = re.compile(r"<(?P<tag>[A-Z_]+)>(?P<text>[^<]*)(?P<end></(?P=tag)>|\Z)")
#: Reasons that quote values of an event (``errors.py``, ``queue/intake.py``).
_QUOTES_EVENT: Final = re.compile(r"is not in the catalogue's form|it could not be (read|accepted)")
_ESCAPES: Final = {"\r": "&#13;"}
_UNESCAPES: Final = {"&#13;": "\r"}
#: Characters of a personal value from which on it is looked for in an answer.
_ECHO_MIN: Final = 4
_KINDS: Final = frozenset(tags.KIND_OF.values())


class Masker:
    """Masks for what is personal.

    Args:
        key: of the suffix; without one masks have no suffix.
        trouble: why there is no key, a sentence.

    Attributes:
        trouble: as given; empty where there is a key.
    """

    def __init__(self, key: bytes | None, trouble: str = "") -> None:
        self._key = key
        self.trouble = trouble

    def number(self, text: str) -> str:
        """Mask a phone number in any spelling: ``1555…37 ·k3f9``; a short code is returned as it is."""
        digits = "".join(c for c in text if c.isdecimal())
        if len(digits) <= SHORT_CODE_MAX and len(text) <= SHORT_CODE_MAX:
            return text
        head = max(0, min(_HEAD, len(digits) - _TAIL - _HIDDEN))
        return f"{digits[:head]}…{digits[-_TAIL:]}{self.suffix('number', text)}"

    def email(self, text: str) -> str:
        """Mask an e-mail address: ``j…@example.com ·k3f9``."""
        name, _, domain = text.strip().rpartition("@")
        return f"{name[:1]}…@{domain}{self.suffix('email', text)}"

    def text(self, text: str) -> str:
        """Mask words of a person: their length alone, without a suffix, which would tell of a Yes that it is one."""
        return f"{len(text):,} character{'s' * (len(text) != 1)}"

    def value(self, tag: str, text: str) -> str:
        """Mask a value as its tag, or its kind, asks for (``tags.py``)."""
        kind = tag if tag in _KINDS else tags.kind_of(tag)
        if not text or kind == tags.OPEN:
            return text
        if kind == tags.NUMBER:
            return self.number(text)
        if kind == tags.EMAIL:
            return self.email(text) if "@" in text else self.text(text)
        if kind == tags.REFERENCE:
            return self._reference(text)
        if kind == tags.WORDS:
            return self.words(text)
        return self._file(text) if kind == tags.FILE else self.text(text)

    def words(self, text: str) -> str:
        """Mask what looks like a number of seven digits or more, or like an e-mail address, within any text.

        Times, ids of postbacks and IP addresses stay.
        """
        return _PERSONAL.sub(self._masked, text)

    def why(self, text: str) -> str:
        """Mask what somebody who works here has typed as a reason: addresses, and numbers of ten digits or more, or with a +.

        Shorter ones stay, as they are tickets' more often than persons'.
        """
        return _PERSONAL.sub(self._masked_in_reason, text)

    def url(self, url: str, *, is_own: bool) -> str:
        """Mask a URL as it is shown; the path of one that came with a call may name a person."""
        shown = redacted(url)
        return self.words(shown) if is_own else shown

    def reason(self, reason: str) -> str:
        """Mask why a postback was not delivered: of an event that the catalogue refuses, its values are quoted there."""
        if reason.replace("_", "").isalpha():  # a word of ours, as nearly all are
            return reason
        return self.words(unquoted(reason) if _QUOTES_EVENT.search(reason) else reason)

    def answer(self, text: str, document: bytes = b"") -> str:
        """Mask a receiver's answer, which may repeat the document, or values of it.

        Args:
            text: what it said, perhaps its begin alone.
            document: what was sent to it.
        """
        text = _ELEMENT.sub(self._masked_element, text)
        for tag, value in elements(document):
            if len(value) >= _ECHO_MIN and tags.kind_of(tag) in {tags.TEXT, tags.REFERENCE, tags.FILE}:
                masked = self.value(tag, value)
                for spelling in _spellings(value):
                    text = text.replace(spelling, masked)
                    text = _without_begin(text, spelling, masked)
        return self.words(text)

    def document(self, document: bytes) -> str:
        """Mask a document tag by tag; it stays well-formed. What is no document of ours is told by its length."""
        text = document.decode("utf-8", "replace")
        if not text.startswith("<?xml"):
            return f"({len(document):,} bytes)" if text else ""
        return _ELEMENT.sub(self._masked_element, text)

    def suffix(self, kind: str, text: str) -> str:
        """Return the suffix of a value, with a space before it; empty without a key."""
        if self._key is None:
            return ""
        name = f"{kind} {canonical(kind, text)}".encode("utf-8", "surrogatepass")
        digest = int.from_bytes(hmac.digest(self._key, name, "sha256")[:8])
        letters = (_LETTERS[digest >> (5 * place) & 31] for place in range(_SUFFIX_LETTERS))
        return f" ·{''.join(letters)}"

    def _reference(self, text: str) -> str:
        if "@" in text:
            return self.email(text)
        if sum(c.isdecimal() for c in text) > SHORT_CODE_MAX and not any(c.isalpha() for c in text):
            return self.number(text)
        return f"{self.text(text)}{self.suffix(tags.REFERENCE, text)}"

    def _file(self, text: str) -> str:
        try:
            url = urlsplit(text)
            where = f"{url.scheme}://{url.hostname or ''}/…"
        except ValueError:
            where = "…"
        return f"{where}{self.suffix(tags.FILE, text)}"

    def _masked(self, match: re.Match[str]) -> str:
        text = match.group()
        if match["email"]:
            return self.email(re.sub("%40|&#64;|&#x40;", "@", text, flags=re.IGNORECASE))
        if match["number"]:
            return self.number(text)
        if text.count(".") == 3 and not _is_ipv4(text):
            return self.number(text) if sum(c.isdecimal() for c in text) > SHORT_CODE_MAX else text
        return text

    def _masked_in_reason(self, match: re.Match[str]) -> str:
        number = match["number"]
        if number and not number.startswith("+") and sum(c.isdecimal() for c in number) < _TYPED_MIN:
            return number
        return self._masked(match)

    def _masked_element(self, match: re.Match[str]) -> str:
        tag = match["tag"]
        value = self.value(tag, unescape(match["text"], _UNESCAPES))
        return f"<{tag}>{escape(value, _ESCAPES)}{match['end']}"


#: Masker for what is read without the key: its masks have no suffix.
KEYLESS: Final = Masker(None)


def elements(document: bytes) -> Iterable[tuple[str, str]]:
    """Yield the tags of a document that have text, with it."""
    for match in _ELEMENT.finditer(document.decode("utf-8", "replace")):
        yield match["tag"], unescape(match["text"], _UNESCAPES)


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _spellings(value: str) -> set[str]:
    """Return a value as XML, JSON and forms write it, and as it is."""
    return {
        value, escape(value, _ESCAPES), quote(value), quote_plus(value),
        json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1],
    }  # fmt: skip


def _without_begin(text: str, value: str, masked: str) -> str:
    """Mask the begin of a value at the end of a text that was cut off."""
    for length in range(min(len(value), len(text)), _ECHO_MIN - 1, -1):
        if text.endswith(value[:length]):
            return text[:-length] + masked
    return text
