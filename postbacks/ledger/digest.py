"""Digest of a postback: what it is compared by with another one of the same id.

*The same* postback means: the account, the event's tags and the call's own ``url=`` are the same.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from postbacks.catalogue.xml import read
from postbacks.errors import InvalidEvent

if TYPE_CHECKING:
    from postbacks.ledger.record import Record

#: Bytes of a digest: two postbacks with the same one by chance are not met in a lifetime.
DIGEST_BYTES: Final = 16


def digest_of(account: str, document: bytes, url: str | None) -> bytes:
    """Return the digest of a postback.

    Args:
        account: name of the account.
        document: the event as its XML document, which is the same bytes for the same tags (``xml.render``).
        url: the call's own URL, None where the account's is used.
    """
    names = f"{account} {'' if url is None else url}\n"  # neither holds a space
    return hashlib.blake2b(names.encode() + document, digest_size=DIGEST_BYTES).digest()


def raw_digest(message: bytes) -> bytes:
    """Return the digest of a message that is no postback."""
    return hashlib.blake2b(message, digest_size=DIGEST_BYTES).digest()


def fresh_id(postback_id: str, digest: bytes) -> str:
    """Return the id under which a postback is kept whose own id is taken; ``accept.lua`` makes the same.

    The same postback gets the same one, however often it comes.
    """
    return hashlib.sha1(postback_id.encode() + digest, usedforsecurity=False).hexdigest()[:32]


def is_same(first: Record, other: Record) -> bool:
    """Compare two records as postbacks: by digest, or by account, URL and tags where the first has none.

    A record of version 0.1.0 has no digest. Its URL is the one that it was routed to: an account whose URL was
    changed meanwhile makes two of what was one, which is told, where the opposite would be silent.
    """
    if first.digest is not None:
        return first.digest == other.digest
    if (first.account, first.url, first.raw) != (other.account, other.url, other.raw):
        return False
    try:
        return first.xml == other.xml or read(first.xml) == read(other.xml)
    except InvalidEvent:
        return False
