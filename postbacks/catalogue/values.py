"""The forms that values of tags have (catalogue: Values).

Each type below is used as the annotation of a field. What it promises stands in its ``Form``, once: pydantic checks
with it, errors quote its words, and the schemas are written from it.

A pattern is matched whole, and is written in what Rust's ``regex`` and XML Schema both understand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic_core import CoreSchema, core_schema

#: Bytes of UTF-8 that one free text may take, as it is sent (after replacing). Longer is refused.
MAX_TEXT_BYTES = 64 * 1024

#: Characters that an opaque id (and, for want of a rule of its own, a carrier id) may have.
MAX_ID_LENGTH = 255

#: Any text that an XML 1.0 document can hold. Checked here only: no document could break it.
XML_TEXT = "[\\t\\n\\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*"

# What XML 1.0 forbids, lone surrogates among them. A str that holds a surrogate *pair* was decoded wrongly
# somewhere; its halves are replaced one by one.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Form:
    """What a value must be, and how it is brought into that form."""

    #: What stands in the document. Completes "must be …" in an error, and documents the schemas.
    words: str
    #: What callers may give instead; continues ``words`` in an error.
    in_python: str = ""
    #: Regular expression for the whole value; None allows any text.
    pattern: str | None = None
    #: Most characters.
    max_length: int | None = None
    #: The closed set of values, or empty when the set is open.
    values: tuple[str, ...] = ()
    #: For a tag that holds other tags: the name of those and the form of each.
    item: tuple[str, Form] | None = None
    #: Brings what callers may also give (an int, a datetime) into text, before the checks; passes on the rest.
    before: Callable[[Any], Any] | None = None
    #: Checks what no pattern can. Raises ValueError, or returns the value.
    after: Callable[[str], str] | None = None

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> CoreSchema:
        """Leave everything but ``before`` and ``after`` to pydantic's Rust core."""
        schema: CoreSchema
        if self.item is not None:
            each = self.item[1].__get_pydantic_core_schema__(_source, _handler)
            schema = core_schema.tuple_variable_schema(each, min_length=1, strict=True)
        else:
            # Strict, since lax would take bytes for text.
            pattern = None if self.pattern is None else f"^(?:{self.pattern})$"
            schema = core_schema.str_schema(strict=True, pattern=pattern, max_length=self.max_length)
        if self.before is not None:
            schema = core_schema.no_info_before_validator_function(self.before, schema)
        if self.after is not None:
            schema = core_schema.no_info_after_validator_function(self.after, schema)
        return schema


def closed_set(*values: str) -> Form:
    """Return the form of a tag that has only these values."""
    return Form(" or ".join(map(repr, values)), values=values)


def _replace_forbidden(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if _FORBIDDEN.search(value):  # clean text, nearly all, is not copied
        value = _FORBIDDEN.sub("\ufffd", value)
    # A character takes 4 bytes at most, so short text needs no encoding to be measured.
    if len(value) * 4 > MAX_TEXT_BYTES and len(value.encode()) > MAX_TEXT_BYTES:
        raise ValueError("too long")
    return value


def _int_to_digits(value: Any) -> Any:
    # True is an int to Python, but nobody's id.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _datetime_to_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _is_in_calendar(value: str) -> str:
    datetime.fromisoformat(value)
    return value


def _is_carried_by_xml(value: str) -> str:
    if _FORBIDDEN.search(value):
        raise ValueError("has a character that XML forbids")
    return value


def _is_url(value: str) -> str:
    url = urlsplit(_is_carried_by_xml(value))
    if not url.hostname or url.port == 0:  # .port itself raises ValueError past 65535
        raise ValueError("no host")
    return value


def _files_of_content(value: Any) -> Any:
    if isinstance(value, Mapping) and value.keys() == {"FILE"}:
        value = value["FILE"]
        if isinstance(value, str):
            return (value,)
    return tuple(value) if isinstance(value, list) else value


#: FROM, TO, MOBILE. Text only: an int could not keep a short code's leading zero.
PhoneNumber = Annotated[
    str,
    Form(
        "a phone number as text: 3 to 15 digits, without + and without leading 00",
        pattern="(0[1-9]|[1-9][0-9])[0-9]{1,13}",
    ),
]

#: FROM_MASK. Letters and digits are ASCII's. "Alphanumeric" is the trade's word for a sender id that is no number, and
#: those in use have spaces and some punctuation ("AT&T", "McDonald's"), so these are taken. It may be empty.
SenderMask = Annotated[
    str,
    Form(
        "at most 11 letters, digits, spaces or any of & ' + - . _",
        pattern=r"[0-9A-Za-z &'+._\-]*",
        max_length=11,
    ),
]

#: TIMESTAMP, RECEIVED. Once checked it is always text. Extended format of ISO 8601 throughout, so ``-0500`` is refused,
#: as is a date that no calendar has.
Timestamp = Annotated[
    str | datetime,
    Form(
        "ISO 8601 with seconds and a UTC offset, like 2013-11-05T05:41:08-05:00",
        ", or a datetime with a zone",
        pattern=(
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.,][0-9]{1,9})?"
            r"(Z|[+\-]([01][0-9]|2[0-3])(:[0-5][0-9])?)"
        ),
        before=_datetime_to_text,
        after=_is_in_calendar,
    ),
]

#: TRACKINGID and its like. Once checked it is always text. What XML forbids is refused, not replaced: a changed id
#: would tie a postback to another message, or to none.
OpaqueId = Annotated[
    str | int,
    Form(
        f"text of at most {MAX_ID_LENGTH} characters that XML allows",
        ", or an int",
        pattern=XML_TEXT,
        max_length=MAX_ID_LENGTH,
        before=_int_to_digits,
    ),
]

#: SPID. An int is refused: it has lost the leading zeros already.
CarrierId = Annotated[
    str,
    Form(
        f"1 to {MAX_ID_LENGTH} digits as text (a number would lose leading zeros)",
        pattern="[0-9]+",
        max_length=MAX_ID_LENGTH,
    ),
]

#: EMAIL. The shape only: something, one @, a domain with a dot; 254 characters at most (RFC 5321). Quoted local parts
#: with spaces or an @ are refused.
Email = Annotated[
    str,
    Form(
        "an e-mail address",
        pattern=r"[^\s@]{1,64}@[^\s@.]+(\.[^\s@.]+)+",
        max_length=254,
        after=_is_carried_by_xml,
    ),
]

#: TEXT, SUBJECT and the other words of people and carriers. What XML 1.0 forbids (NUL, form feed, escape, lone
#: surrogates, U+FFFE, U+FFFF) becomes U+FFFD and is never a reason to refuse. At most 64 KiB of UTF-8, not characters.
FreeText = Annotated[
    str, Form("text of at most 64 KiB of UTF-8", max_length=MAX_TEXT_BYTES, before=_replace_forbidden)
]

_FILE = Form("an http or https URL", pattern=r"[Hh][Tt][Tt][Pp][Ss]?://\S+", after=_is_url)

#: CONTENT. Given as ``{"FILE": [url, …]}``, ``{"FILE": url}`` or ``[url, …]``; once checked always a tuple of URLs.
Content = Annotated[
    list[str] | tuple[str, ...] | Mapping[str, str | list[str]],
    Form(
        "one or more FILE",
        ", as {'FILE': [url, …]} or [url, …]",
        item=("FILE", _FILE),
        before=_files_of_content,
    ),
]
