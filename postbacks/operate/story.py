"""Story of a message, masked unless a reason to reveal it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks.history import story as read_story
from postbacks.operate.reveal import check_reveal, write_reveal
from postbacks.privacy import masker

if TYPE_CHECKING:
    from postbacks.history.timeline import Story


def story(
    value: str, *, account: str | None = None, reveal: str | None = None, by: str | None = None
) -> Story:
    """Tell what happened to a message.

    Args:
        value: a postback's id, else a TRACKINGID or an MMSID.
        account: of this account alone.
        reveal: why numbers, addresses and texts are to be shown, for the journal; None masks them.
        by: who asks; None for the user of this process.

    Raises:
        RevealRefused: the reason to reveal is empty.
        UnknownPostback: history has no such postback.
        HistoryOff: no history is set.
        HistoryError: its database cannot be used.
    """
    check_reveal(reveal)
    if reveal is None:
        return read_story(value, account=account, mask=masker())
    unmasked = read_story(value, account=account)
    write_reveal(value, reveal, by)
    return unmasked
