"""What a postback's POST looks like to the receiver: its headers."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from postbacks.ledger.record import iso

try:
    VERSION: Final = version("postbacks")
except PackageNotFoundError:  # run from a checkout that is not installed
    VERSION = "0"  # type: ignore[misc]

USER_AGENT: Final = f"postbacks/{VERSION}"

_FIXED: Final = ("Content-Type: application/xml; charset=utf-8", f"User-Agent: {USER_AGENT}")


def headers(postback_id: str, attempt: int, created_ms: int, sequence: int) -> list[str]:
    """The headers of one POST, ``Name: value`` each; libcurl adds Host, Accept and Content-Length."""
    return [
        *_FIXED,
        f"Postback-Id: {postback_id}",
        f"Postback-Attempt: {attempt}",
        f"Postback-Created: {iso(created_ms)}",
        f"Postback-Sequence: {sequence}",
    ]
