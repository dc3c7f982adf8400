"""Body of an answer by its header: where it ends, and its first bytes as text.

libcurl judges a length before it shows us the line: a ``Content-Length`` that is no number ends the transfer, and we do
not learn whether the header came whole. So that attempt has failed. But the URL is remembered (``MISREAD``), and from the
next POST on libcurl ignores lengths there.
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
#: Begin of both names: nearly all lines begin otherwise, and every line of every answer is asked.
_STARTS: Final = frozenset({_TRANSFER_CODING[:10], _LENGTH[:10]})
#: Digits of a length at most; no body is longer.
_DIGITS_MAX: Final = 18

_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[^\r\n]*\r?\n")
#: Characters of a coding's name that no detail repeats.
_NO_TOKEN: Final = re.compile(r"[^\w, .+-]", re.ASCII)
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:+-]+)", re.IGNORECASE | re.ASCII)
#: Encodings of this Python. Any other name that a receiver gives is not looked up, since Python would remember it.
_ENCODINGS: Final = frozenset(aliases) | frozenset(aliases.values())
#: Names of encodings that Java's and Microsoft's servers use -> the same for Python, which does not know them.
_OTHER_NAMES: Final = {
    "windows_31j": "cp932",
    "windows_874": "cp874",
    "windows_949": "cp949",
    "x_gbk": "gbk",
    "x_sjis": "shift_jis",
}
#: Encodings that Python knows and no answer may use.
_REFUSED: Final = frozenset(
    {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7"}
)


class Misread:
    """URLs whose answers libcurl could not read, the latest ``urls_max`` of them."""

    def __init__(self, urls_max: int = 1000) -> None:
        self._urls_max = urls_max
        self._urls: dict[str, None] = {}

    def __contains__(self, url: str) -> bool:
        return url in self._urls

    def add(self, url: str) -> None:
        """Have libcurl ignore lengths in this URL's answers."""
        self._urls[url] = None
        for oldest in list(self._urls)[: -self._urls_max]:  # a list: clients of other threads add as well
            self._urls.pop(oldest, None)

    def discard(self, url: str) -> None:
        """Let libcurl judge lengths in this URL's answers again."""
        self._urls.pop(url, None)


#: Shared by the clients of a process: each by itself would have to fail once to know.
MISREAD: Final = Misread()


# -- the end of the body ---------------------------------------------------------------------------


def is_framed(lines: Sequence[bytes]) -> bool:
    """True if a header says without contradiction where its body ends (RFC 9112 6.3).

    A header that says nothing is framed: its body ends with the connection. After an answer that is not framed the
    connection must not be used again: what is left on it could be taken for the next answer.
    """
    lengths: set[bytes] = set()
    codings: list[bytes] = []
    for line in lines:
        if line[:10].lower() not in _STARTS:
            continue
        name, _, value = line.lower().partition(b":")
        if name != name.rstrip() and name.rstrip() in {_LENGTH, _TRANSFER_CODING}:
            return False  # libcurl does not know this name, and would wait for the connection's end
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


# -- the body as text ----------------------------------------------------------------------------------


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
        most_bytes: bytes that are inflated at most.
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
    """Cut a text so that its JSON fits: a control character takes six bytes there, half a character three."""
    taken = 0
    for at, char in enumerate(text):
        taken += len(json.dumps(char, ensure_ascii=False).encode("utf-8", "replace")) - 2
        if taken > most_bytes:
            return text[:at]
    return text


def _inflate(data: bytes, most_bytes: int, wbits: int = 47) -> tuple[bytes, bool]:
    """Inflate gzip or zlib; returns the content, and whether its end has been reached."""
    inflating = zlib.decompressobj(wbits=wbits)
    return inflating.decompress(data, most_bytes), inflating.eof


def _inflate_deflate(data: bytes, most_bytes: int) -> tuple[bytes, bool]:
    """Inflate zlib, or the bare deflate that some servers send under that name (RFC 9110 8.4.1.2)."""
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
