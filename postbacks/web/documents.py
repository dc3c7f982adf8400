"""XML documents for people: an element a line, tags told from values. All of it is escaped, piece by piece."""

from __future__ import annotations

import re
from typing import Final

from markupsafe import Markup

from postbacks.printable import document_text

#: What stands in angle brackets: a declaration, a comment, the begin or the end of an element.
_TAG: Final = re.compile(r"<[?!][^<>]*>|</?[A-Za-z_][^<>]*>")
#: Characters that are shown: what is longer is no document of ours.
LENGTH_MAX: Final = 200_000
_INDENT: Final = "  "


def highlighted(document: bytes) -> Markup:
    """Return a document as HTML for ``<pre>``."""
    text = document.decode("utf-8", "backslashreplace")[:LENGTH_MAX]
    shown: list[Markup] = []
    depth, at, is_leaf = 0, 0, False
    for match in _TAG.finditer(text):
        tag, before = match.group(), text[at : match.start()]
        at = match.end()
        if before.strip():
            shown.append(_piece("value", before))
        is_end = tag.startswith("</")
        if is_end:
            depth = max(0, depth - 1)
        if not (is_end and is_leaf) and not before.strip() and shown:
            shown.append(Markup("\n{}").format(_INDENT * depth))
        shown.append(_piece("tag" if tag[1] not in "?!" else "note", tag))
        is_leaf = not is_end and tag[1] not in "?!" and not tag.endswith("/>")
        depth += is_leaf
    if text[at:].strip():
        shown.append(_piece("value", text[at:]))
    return Markup("").join(shown)


def _piece(mark: str, text: str) -> Markup:
    return Markup('<span class="x-{}">{}</span>').format(
        mark, document_text(text.encode("utf-8", "surrogatepass"))
    )
