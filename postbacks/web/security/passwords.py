"""Passwords as they are kept: scrypt with a salt each, of the standard library.

A hash is ``scrypt$N$r$p$salt$key``, salt and key in base64: what it was made with stands in it, and can be raised.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from typing import Final, NamedTuple

#: N, r and p: 32 MB and a quarter of a second a try.
_N, _R, _P = 2**15, 8, 3
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
#: Memory that a hash of a file may ask for: more would be somebody's attack.
_MEMORY_MAX: Final = 256 * 1024 * 1024
#: Characters of a password.
SHORTEST: Final = 10
LONGEST: Final = 1000


class _Parts(NamedTuple):
    n: int
    r: int
    p: int
    salt: bytes
    key: bytes


def hashed(password: str) -> str:
    """Return the hash of a password."""
    salt = secrets.token_bytes(_SALT_BYTES)
    key = _derive(password, _Parts(_N, _R, _P, salt, bytes(_KEY_BYTES)))
    return f"scrypt${_N}${_R}${_P}${b64encode(salt).decode()}${b64encode(key).decode()}"


def matches(password: str, of_file: str) -> bool:
    """Tell whether a hash is this password's; with a hash that cannot be it takes as long, and is False."""
    parts = _parsed(of_file)
    if parts is None:
        _derive(password[:LONGEST], _Parts(_N, _R, _P, bytes(_SALT_BYTES), bytes(_KEY_BYTES)))
        return False
    return hmac.compare_digest(_derive(password[:LONGEST], parts), parts.key)


def is_hash(text: str) -> bool:
    """Tell whether a text is a hash of this form."""
    return _parsed(text) is not None


def _parsed(text: str) -> _Parts | None:
    try:
        kind, n, r, p, salt, key = text.split("$")
        parts = _Parts(int(n), int(r), int(p), b64decode(salt, validate=True), b64decode(key, validate=True))
    except ValueError:
        return None
    is_sound = (
        kind == "scrypt"
        and parts.n >= 2**14
        and parts.n & (parts.n - 1) == 0
        and parts.r > 0
        and 0 < parts.p <= 16
        and 128 * parts.n * parts.r <= _MEMORY_MAX
        and len(parts.salt) >= 8
        and len(parts.key) >= 16
    )
    return parts if is_sound else None


def _derive(password: str, parts: _Parts) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=parts.salt,
        n=parts.n,
        r=parts.r,
        p=parts.p,
        maxmem=2 * _MEMORY_MAX,
        dklen=len(parts.key),
    )
