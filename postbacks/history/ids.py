"""Ids of postbacks as the history keeps them: a UUID and 32 hexadecimal digits in 17 bytes, any other as its text."""

from __future__ import annotations

import re
from typing import Final

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-f]{32}\Z", re.ASCII)

#: First byte: how the rest is to be read. An id is printable ASCII (``names.is_id``), so its text has none of these.
_UUID_MARK: Final = b"\x01"
_HEX_MARK: Final = b"\x02"


def pack(postback_id: str) -> bytes:
    """Pack an id; each id has one packed form."""
    if _UUID.match(postback_id):
        return _UUID_MARK + bytes.fromhex(postback_id.replace("-", ""))
    if _HEX.match(postback_id):
        return _HEX_MARK + bytes.fromhex(postback_id)
    return postback_id.encode()


def unpack(packed: bytes) -> str:
    """Return the id that was packed."""
    digits = packed[1:].hex()
    if packed[:1] == _UUID_MARK:
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return digits if packed[:1] == _HEX_MARK else packed.decode()
