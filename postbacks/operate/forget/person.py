"""Person to be forgotten: the hash of a number or an e-mail address, and what is that person's by it.

The value itself is kept nowhere: whatever is searched is hashed as the history's index is (``history/values.py``).
"""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from postbacks.catalogue.xml import render
from postbacks.errors import InvalidQuery, PostbacksError
from postbacks.history import values
from postbacks.printable import quoted
from postbacks.privacy.spelling import canonical
from postbacks.queue.message import MAX_BODY_BYTES, Unreadable, decode
from postbacks.queue.protocol import DECOMPRESSORS
from postbacks.queue.send_request import check_request

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER: Final = "number"
EMAIL: Final = "email"

#: Digits that a person's number has at least; a shorter one is a short code, which is a company's.
MIN_DIGITS: Final = 7
#: Digits of an international number at most, by E.164, and some for what is dialled before them.
MAX_DIGITS: Final = 20

_ADDRESS: Final = re.compile(r"[^\s@]+@[^\s@]+\Z")
#: Values within a text that nobody has read: numbers with and without what people write into them, addresses.
_WITHIN: Final = {
    NUMBER: (re.compile(r"\d{7,20}"), re.compile(r"\+?\d[\d\s().\-/\u2010-\u2015\u00a0]{5,40}\d")),
    EMAIL: (re.compile(r"[^\s\"'<>,;:\\()]+@[^\s\"'<>,;:\\()]+"),),
}
_BODY: Final = re.compile(rb'"body": ?"([A-Za-z0-9+/]{4,})=*"')
_JSON_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")


class Person(NamedTuple):
    """Person, as far as a search needs to know.

    Attributes:
        kind: ``number`` or ``email``.
        hash: of the value, as the history's index has it.
    """

    kind: str
    hash: int

    @classmethod
    def of(cls, *, number: str | None = None, email: str | None = None) -> Person:
        """Check a number or an e-mail address and return whose it is.

        Raises:
            InvalidQuery: neither or both are given, or it cannot be a person's.
        """
        if (number is None) == (email is None):
            raise InvalidQuery("A person is named by one number or one e-mail address: give one of the two.")
        kind, text = (NUMBER, number) if number is not None else (EMAIL, email or "")
        value = canonical(kind, text or "")
        if kind == EMAIL and not _ADDRESS.match(value):
            raise InvalidQuery(f"{quoted(value)} is no e-mail address: name@host.")
        if kind == NUMBER and not (
            value.isascii() and value.isdecimal() and MIN_DIGITS <= len(value) <= MAX_DIGITS
        ):
            raise InvalidQuery(
                f"{quoted(text or '')} is no number of a person: {MIN_DIGITS} to {MAX_DIGITS} digits with the country's code. "
                "A short code is a company's, and all its postbacks would be meant."
            )
        return cls(kind, values.hash_of(kind, text or ""))

    def is_named_in_document(self, document: bytes) -> bool:
        """Tell whether a document's tags name the person; a text that mentions the person is somebody else's."""
        return any(self._is(text) for kind, text in values.of_document(document) if kind == self.kind)

    def is_named_in_message(self, raw: bytes) -> bool:
        """Tell whether a message of Celery's queue is about the person, or mentions the person where it cannot be read."""
        try:
            message = decode(raw)
            document = render(check_request(message.args, message.kwargs).event)
        except (Unreadable, PostbacksError):
            return self.is_mentioned(raw)
        except Exception:  # noqa: BLE001 - whatever one message does to its reader, the search goes on
            return self.is_mentioned(raw)
        return self.is_named_in_document(document)

    def is_mentioned(self, raw: bytes) -> bool:
        """Tell whether bytes that are no document mention the person, in their text or in a message's packed body."""
        return any(self._is(text) for text in self._values_within(raw))

    def without(self, text: str, pseudonym: str) -> str:
        """Return a text of somebody who works here, with the pseudonym wherever it mentions the person."""
        for pattern in _WITHIN[self.kind]:
            text = pattern.sub(lambda value: pseudonym if self._is(value[0]) else value[0], text)
        return text

    def _is(self, text: str) -> bool:
        return values.hash_of(self.kind, text) == self.hash

    def _values_within(self, raw: bytes) -> Iterator[str]:
        for text in _texts(raw):
            plain = _JSON_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
            for pattern in _WITHIN[self.kind]:
                yield from pattern.findall(plain)


def _texts(raw: bytes) -> Iterator[str]:
    """Yield what bytes say, and what a message's body says, which stands in them as base64 and may be compressed."""
    yield raw.decode("utf-8", "replace")
    for packed in _BODY.findall(raw):
        body = base64.b64decode(packed[: len(packed) // 4 * 4])
        yield body.decode("utf-8", "replace")
        for decompressor in DECOMPRESSORS.values():
            with suppress(Exception):  # it is of another compression, or of none
                yield decompressor().decompress(body, MAX_BODY_BYTES).decode("utf-8", "replace")
