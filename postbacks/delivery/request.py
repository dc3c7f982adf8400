"""What a postback's POST looks like to the receiver: its headers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from postbacks.ledger.record import iso
from postbacks.transport.profile import Profile
from postbacks.version import VERSION

USER_AGENT: Final = f"postbacks/{VERSION}"

_FIXED: Final = ("Content-Type: application/xml; charset=utf-8", f"User-Agent: {USER_AGENT}")


def headers(
    postback_id: str, attempt: int, created_ms: int, sequence: int, at_ms: int, body: bytes, profile: Profile
) -> list[str]:
    """The headers of one POST, ``Name: value`` each; libcurl adds Host, Accept and Content-Length.

    Args:
        postback_id: the postback's id.
        attempt: number of this POST.
        created_ms: when the event was accepted.
        sequence: number of the postback in its account.
        at_ms: when this POST begins; both times on the broker's clock.
        body: what is signed.
        profile: the account's extra headers and secrets.
    """
    lines = [
        *_FIXED,
        f"Postback-Id: {postback_id}",
        f"Postback-Attempt: {attempt}",
        f"Postback-Created: {iso(created_ms)}",
        f"Postback-Sequence: {sequence}",
        *profile.headers,
    ]
    if profile.signers:
        lines += _signature(postback_id, at_ms, body, profile)
    return lines


def _signature(postback_id: str, at_ms: int, body: bytes, profile: Profile) -> list[str]:
    """The headers of Standard Webhooks: the time of this attempt, one signature a secret."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    text = body.decode()
    signatures = " ".join(signer.sign(postback_id, moment, text) for signer in profile.signers)
    return [
        f"webhook-id: {postback_id}",
        f"webhook-timestamp: {at_ms // 1000}",
        f"webhook-signature: {signatures}",
    ]
