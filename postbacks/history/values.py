"""Business values: what support knows of a message, read from its document, in one spelling, as a hash to search by."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from postbacks.privacy.spelling import canonical

#: Kind of a value -> the tags that hold one (catalogue: Codes).
KINDS: Final = {
    "tracking_id": ("TRACKINGID",),
    "mms_id": ("MMSID",),
    "number": ("FROM", "TO", "MOBILE"),
    "email": ("EMAIL",),
    "sub_id": ("SUBID",),
    "serial_number": ("SERIALNUMBER",),
}
_KIND_OF: Final = {tag.encode(): kind for kind, tags in KINDS.items() for tag in tags}
#: Tag whose value may be a number, an e-mail address or anything else: a pass names its holder by whatever its maker knows.
_REFERENCE: Final = b"REFERENCEVALUE"
#: Digits of a reference that is taken for a number.
_REFERENCE_DIGITS: Final = range(7, 16)

#: Documents are rendered by ``catalogue/xml.py``, an element a tag without attributes: a pattern reads them in a tenth of
#: a parser's time. A tag inside a text cannot be met, as < is escaped there.
_ELEMENT: Final = re.compile(rb"<(" + b"|".join([*_KIND_OF, _REFERENCE]) + rb")>([^<]*)</")
#: Any element that has text alone.
_TEXT_ELEMENT: Final = re.compile(rb"<([A-Z_]+)>([^<]*)</")


def of_document(document: bytes) -> list[tuple[str, str]]:
    """Read the business values of a document: kind and text as it was sent, in the document's order, none twice."""
    values: dict[tuple[str, str], None] = {}
    for tag, text in _ELEMENT.findall(document):
        if not text:
            continue
        value = _unescaped(text)
        if kind := _kind_of_reference(value) if tag == _REFERENCE else _KIND_OF[tag]:
            values[kind, value] = None
    return list(values)


def _kind_of_reference(text: str) -> str:
    """Return what a pass is referenced by, as far as it is a person's; empty for anything else."""
    if "@" in text:
        return "email"
    digits = canonical("number", text)
    return "number" if digits.isdecimal() and len(digits) in _REFERENCE_DIGITS else ""


def read_tags(document: bytes) -> dict[str, str]:
    """Read the tags of a document that have text, as it was sent."""
    return {tag.decode(): _unescaped(text) for tag, text in _TEXT_ELEMENT.findall(document)}


def _unescaped(text: bytes) -> str:
    decoded = text.decode("utf-8", "replace")
    if "&" not in decoded:
        return decoded
    for escape, character in (("&lt;", "<"), ("&gt;", ">"), ("&#13;", "\r"), ("&amp;", "&")):
        decoded = decoded.replace(escape, character)
    return decoded


def hash_of(kind: str, text: str) -> int:
    """Return the hash that a value is found by: 64 bits, signed, of its kind and its one spelling.

    Two values have the same one by chance once in 10^12 searches of ten million values.
    """
    name = f"{kind} {canonical(kind, text)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big", signed=True)
