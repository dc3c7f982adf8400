"""Strangers' text as a terminal or a log may be given it: nothing in it moves the cursor, turns the writing or forges a line.

Receivers' answers, names, URLs and words of messages come from outside, and terminals obey escape sequences. What is no
printable character of Unicode (control characters of both blocks, bidirectional controls and other format characters,
line and paragraph separators, lone surrogates, what this Python does not know) is written as an escape. In JSON that is
JSON's own, so that what is read back is the same.
"""

from __future__ import annotations

import json
from typing import Any


def printable(text: object) -> str:
    """Return a text as one line of a terminal or a log."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each as ``printable`` writes it."""
    return "\n".join(map(printable, text.split("\n")))


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """Write a value as JSON on one line, which reads back as the same value."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def document_text(document: bytes) -> str:
    """Write an XML document for a terminal: the same document, its unprintable characters as references (``&#x9b;``)."""
    text = document.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else f"&#x{ord(c):x};" for c in text)
