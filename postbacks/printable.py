"""Strangers' text for terminals and logs: nothing in it moves the cursor, turns the writing or forges a line.

Receivers' answers, names, URLs and words of messages come from outside, and terminals obey escape sequences. So each
character that Unicode does not call printable is written as an escape: control characters of both blocks, bidirectional
controls and other format characters, line and paragraph separators, lone surrogates, characters that this Python does
not know. In JSON the escape is JSON's own, so that the same text is read back.
"""

from __future__ import annotations

import json
from reprlib import Repr
from typing import Any

#: Most characters of a value, or of an unknown tag, that an error quotes.
MAX_QUOTED = 60

_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = MAX_QUOTED


def printable(text: object) -> str:
    """Return a text as one line of a terminal or a log."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each of them printable."""
    return "\n".join(map(printable, text.split("\n")))


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """Return a value as JSON on one printable line, which reads back as the same value."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def document_text(document: bytes) -> str:
    """Return an XML document for a terminal: the same, with unprintable characters as references (``&#x9b;``)."""
    text = document.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else f"&#x{ord(c):x};" for c in text)


def quoted(value: object) -> str:
    """Return a value as errors quote it: Python's repr, at most ``MAX_QUOTED`` characters."""
    try:
        text = _repr.repr(value)
    except Exception:  # noqa: BLE001 - a value without a repr (an int too long for str) must not hide the problem
        return f"<{type(value).__name__}>"
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 1]}…"
