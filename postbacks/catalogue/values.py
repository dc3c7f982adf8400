"""The forms of tags' values (catalogue: Values), each a type that annotates a field.

The rule of a type stands in its ``Form`` alone: pydantic checks with it, errors quote its words, and the schemas are
derived from it. A pattern is matched against the whole value, and is written in syntax that Rust's ``regex`` and XML
Schema share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic_core import CoreSchema, core_schema

#: Most bytes of UTF-8 of a free text, after forbidden characters were replaced. A longer text is refused.
MAX_TEXT_BYTES = 64 * 1024

#: Most characters of an opaque id, and of a carrier id, for which the catalogue has no rule.
MAX_ID_LENGTH = 255

#: Text that an XML 1.0 document can hold. Schemas leave this pattern out, as every document keeps to it.
XML_TEXT = "[\\t\\n\\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*"

# Characters that XML 1.0 forbids, lone surrogates among them. The two halves of a surrogate *pair* in a str, which was
# decoded wrongly somewhere, are replaced one by one.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a value: its rule, and the conversion of other types that callers may give.

    Attributes:
        words: the rule in words; completes "must be …" in an error, and documents the schemas.
        in_python: other types that callers may give; continues ``words`` in an error.
        pattern: regular expression for the whole value; None allows any text.
        max_length: most characters.
        values: the closed set of values; empty where the set is open.
        item: of a tag that holds other tags, the name of those and the form of each.
        before: converts other types (an int, a datetime) to text before the checks, and passes on the rest.
        after: checks what no pattern can; raises ValueError, or returns the value.
    """

    words: str
    in_python: str = ""
    pattern: str | None = None
    max_length: int | None = None
    values: tuple[str, ...] = ()
    item: tuple[str, Form] | None = None
    before: Callable[[Any], Any] | None = None
    after: Callable[[str], str] | None = None

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> CoreSchema:
        """Build pydantic's schema, whose Rust core does everything but ``before`` and ``after``."""
        schema: CoreSchema
        if self.item is not None:
            item_schema = self.item[1].__get_pydantic_core_schema__(_source, _handler)
            schema = core_schema.tuple_variable_schema(item_schema, min_length=1, strict=True)
        else:
            # Strict, as pydantic's lax mode takes bytes for text.
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
    if _FORBIDDEN.search(value):  # searched first, so that clean text, which nearly all is, is not copied
        value = _FORBIDDEN.sub("\ufffd", value)
    # A character takes 4 bytes at most, so short text is measured without encoding it.
    if len(value) * 4 > MAX_TEXT_BYTES and len(value.encode()) > MAX_TEXT_BYTES:
        raise ValueError("too long")
    return value


def _int_to_digits(value: Any) -> Any:
    # A bool is an int to Python, and is no id.
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


#: FROM, TO, MOBILE. An int is refused, as it cannot keep a short code's leading zero.
PhoneNumber = Annotated[
    str,
    Form(
        "a phone number as text: 3 to 15 digits, without + and without leading 00",
        pattern="(0[1-9]|[1-9][0-9])[0-9]{1,13}",
    ),
]

#: FROM_MASK. Letters and digits are ASCII. "Alphanumeric" is the trade's word for a sender id that is no number; ids in
#: use have spaces and some punctuation ("AT&T", "McDonald's"), so these are allowed. It may be empty.
SenderMask = Annotated[
    str,
    Form(
        "at most 11 letters, digits, spaces or any of & ' + - . _",
        pattern=r"[0-9A-Za-z &'+._\-]*",
        max_length=11,
    ),
]

#: TIMESTAMP, RECEIVED. A checked value is text. The whole is in the extended format of ISO 8601: ``-0500`` is refused,
#: as is a date that is not in the calendar.
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

#: TRACKINGID and other ids. A checked value is text. A character that XML forbids is refused and not replaced: a changed
#: id would tie a postback to another message, or to none.
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

#: SPID. An int is refused, as it has lost the leading zeros.
CarrierId = Annotated[
    str,
    Form(
        f"1 to {MAX_ID_LENGTH} digits as text (a number would lose leading zeros)",
        pattern="[0-9]+",
        max_length=MAX_ID_LENGTH,
    ),
]

#: EMAIL. The shape alone is checked: a local part, one @, a domain with a dot; 254 characters at most (RFC 5321). Quoted
#: local parts with spaces or an @ are refused.
Email = Annotated[
    str,
    Form(
        "an e-mail address",
        pattern=r"[^\s@]{1,64}@[^\s@.]+(\.[^\s@.]+)+",
        max_length=254,
        after=_is_carried_by_xml,
    ),
]

#: TEXT, SUBJECT and other words of people and carriers. A character that XML 1.0 forbids (NUL, form feed, escape, lone
#: surrogates, U+FFFE, U+FFFF) becomes U+FFFD, and is no reason to refuse. The limit of 64 KiB counts bytes of UTF-8.
FreeText = Annotated[
    str, Form("text of at most 64 KiB of UTF-8", max_length=MAX_TEXT_BYTES, before=_replace_forbidden)
]

_FILE = Form("an http or https URL", pattern=r"[Hh][Tt][Tt][Pp][Ss]?://\S+", after=_is_url)

#: CONTENT. Given as ``{"FILE": [url, …]}``, ``{"FILE": url}`` or ``[url, …]``; a checked value is a tuple of URLs.
Content = Annotated[
    list[str] | tuple[str, ...] | Mapping[str, str | list[str]],
    Form(
        "one or more FILE",
        ", as {'FILE': [url, …]} or [url, …]",
        item=("FILE", _FILE),
        before=_files_of_content,
    ),
]
