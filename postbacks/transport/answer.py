"""The body of an answer as its header describes it: where it ends, and how its first bytes read as text.

libcurl judges a length before it shows the line: a ``Content-Length`` that is no number ends the transfer, and
whether the header went on to its end is not known then. So that attempt has failed; but the URL is remembered
(``MISREAD``), and from the next POST on libcurl is told to ignore lengths there.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Callable, Sequence
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import Final

_TRANSFER_CODING: Final = b"transfer-encoding"
_LENGTH: Final = b"content-length"
#: How both begin: nearly all lines begin otherwise, and every answer's are asked.
_STARTS: Final = frozenset({_TRANSFER_CODING[:10], _LENGTH[:10]})
#: More digits are no length of anything.
_DIGITS_MAX: Final = 18

_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[^\r\n]*\r?\n")
#: Bytes of a coding's name that no detail repeats.
_NO_TOKEN: Final = re.compile(r"[^\w, .+-]", re.ASCII)
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:+-]+)", re.IGNORECASE | re.ASCII)
#: Encodings of this Python; a stranger's name that is none of them is not looked up, since Python remembers it.
_ENCODINGS: Final = frozenset(aliases) | frozenset(aliases.values())
#: Names that Java's and Microsoft's servers use -> the same for Python, which does not know them.
_OTHER_NAMES: Final = {
    "windows_31j": "cp932",
    "windows_874": "cp874",
    "windows_949": "cp949",
    "x_gbk": "gbk",
    "x_sjis": "shift_jis",
}
#: Text to Python, but of no answer.
_REFUSED: Final = frozenset(
    {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7"}
)


class Misread:
    """URLs whose answers libcurl could not read, the latest ``most`` of them."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._urls: dict[str, None] = {}

    def __contains__(self, url: str) -> bool:
        return url in self._urls

    def add(self, url: str) -> None:
        """Have libcurl ignore the lengths that this URL's answers name."""
        self._urls[url] = None
        for oldest in list(self._urls)[: -self._most]:  # a list: transports of other threads add as well
            self._urls.pop(oldest, None)

    def discard(self, url: str) -> None:
        """Let libcurl judge the lengths of this URL's answers again."""
        self._urls.pop(url, None)


#: Shared by the transports of a process: each would have to fail once to know.
MISREAD: Final = Misread()


# -- where the body ends ---------------------------------------------------------------------------


def is_framed(lines: Sequence[bytes]) -> bool:
    """True if a header says without contradiction where its body ends (RFC 9112 6.3).

    It may also say nothing: the body then ends with the connection. After anything else the connection must not be
    used again: what is left on it could be taken for the next answer.
    """
    lengths: set[bytes] = set()
    codings: list[bytes] = []
    for line in lines:
        if line[:10].lower() not in _STARTS:
            continue
        name, _, value = line.lower().partition(b":")
        if name != name.rstrip() and name.rstrip() in {_LENGTH, _TRANSFER_CODING}:
            return False  # libcurl does not know it by this name, and would wait for the connection's end
        if name == _LENGTH:
            lengths.update(map(bytes.strip, value.split(b",")))
        elif name == _TRANSFER_CODING:
            codings.append(value.strip())
    if codings:
        return codings == [b"chunked"] and not lengths
    if len(lengths) != 1:
        return not lengths
    (length,) = lengths
    return length.isdigit() and len(length) <= _DIGITS_MAX


# -- how it reads ----------------------------------------------------------------------------------


def content_of(lines: Sequence[bytes], body: bytes) -> bytes:
    """Return the first bytes of a body without the sizes of its chunks, which libcurl leaves in."""
    if _values(lines, "transfer-encoding")[-1:] != ["chunked"]:
        return body
    content, at = b"", 0
    while (size := _CHUNK.match(body, at)) and int(size[1], 16):
        end = size.end() + int(size[1], 16)
        content += body[size.end() : end]
        at = end + (2 if body[end : end + 2] == b"\r\n" else 1)
    return content


def excerpt_of(lines: Sequence[bytes], body: bytes, most_bytes: int) -> tuple[str, str]:
    """Return the first bytes of an answer's body as text, and in words what could not be read.

    Args:
        lines: the answer's header.
        body: its first bytes as they came.
        most_bytes: of what is inflated no more is made.
    """
    content = content_of(lines, body)
    if not content or not most_bytes:
        return "", ""
    fault = ""
    names = [*_values(lines, "content-encoding"), *_values(lines, "transfer-encoding")]
    codings = [name for name in names if name not in {"identity", "chunked", ""}]
    inflate = _INFLATERS.get(codings[0]) if len(codings) == 1 else None
    if inflate is not None:
        try:
            content, ended = inflate(content, most_bytes)
            if not content:
                return "", "" if ended else f"its body is not shown: too little of the {codings[0]} was kept"
        except zlib.error:
            fault = f"its body is not the {codings[0]} that its header names"
    elif any(name in _COMPRESSIONS for name in codings):
        return "", f"its body is not shown: compressed as {_NO_TOKEN.sub('?', ', '.join(codings))[:60]}"
    content = content[:most_bytes]
    match = _CHARSET.search(_text(lines, "content-type"))
    text = _decode(content, match[1]) if match else None
    if text is None:
        text = _decode(content, "utf-8") or ""
        if match:
            fault = fault or f"its body is not the {match[1][:40]} that its header names; read as UTF-8"
    return _fitting(text, 2 * most_bytes), fault


def _fitting(text: str, most_bytes: int) -> str:
    """Cut a text whose JSON takes more: a control character takes six bytes there, half a character three."""
    taken = 0
    for at, char in enumerate(text):
        taken += len(json.dumps(char, ensure_ascii=False).encode("utf-8", "replace")) - 2
        if taken > most_bytes:
            return text[:at]
    return text


def _inflate(data: bytes, most_bytes: int, wbits: int = 47) -> tuple[bytes, bool]:
    """Inflate gzip or zlib, and say whether its end has been reached."""
    inflating = zlib.decompressobj(wbits=wbits)
    return inflating.decompress(data, most_bytes), inflating.eof


def _inflate_deflate(data: bytes, most_bytes: int) -> tuple[bytes, bool]:
    """Inflate zlib, or the bare deflate that some send under that name (RFC 9110 8.4.1.2)."""
    try:
        return _inflate(data, most_bytes)
    except zlib.error:
        return _inflate(data, most_bytes, wbits=-15)


_INFLATERS: Final[dict[str, Callable[[bytes, int], tuple[bytes, bool]]]] = {
    "gzip": _inflate,
    "x-gzip": _inflate,
    "deflate": _inflate_deflate,
}
_COMPRESSIONS: Final = frozenset({*_INFLATERS, "br", "zstd", "compress", "x-compress", "dcb", "dcz"})


def _decode(content: bytes, charset: str) -> str | None:
    """Decode text that may end in the middle of a character; None where the name is no encoding of it."""
    normalized = normalize_encoding(charset).lower()
    charset = _OTHER_NAMES.get(normalized, charset)
    if normalized not in _ENCODINGS and normalized not in _OTHER_NAMES:
        return None
    try:
        name = codecs.lookup(charset).name
        content[:1].decode(name, "replace")  # refuses what is no encoding of text
        return None if name in _REFUSED else codecs.getincrementaldecoder(name)("replace").decode(content)
    except (LookupError, ValueError):
        return None


def _text(lines: Sequence[bytes], name: str) -> str:
    """Return all values of a header, joined by commas."""
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return ", ".join(value.strip() for other, _, value in pairs if other.strip().lower() == name)


def _values(lines: Sequence[bytes], name: str) -> list[str]:
    """Return the members of a header's list, in lower case."""
    text = _text(lines, name).lower()
    return [value.strip() for value in text.split(",")] if text else []
