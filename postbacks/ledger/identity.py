"""Check of an id that a caller gives: it stands for one account's one event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postbacks.broker.client import client
from postbacks.errors import BrokerUnfit, IdTaken
from postbacks.ledger.ledger import Ledger

if TYPE_CHECKING:
    from postbacks.catalogue import Event


def check_id(postback_id: str, account: str, event: Event, url: str | None) -> None:
    """Check that no other postback has an id, as far as the ledger knows it by now.

    What is still in the queue, and a record of version 0.1.0, is judged when the message is taken in; so is all where
    the broker's user may not read records.

    Raises:
        IdTaken: another account's postback has it, or another event's, or one to another URL.
        BrokerError: the ledger cannot be read.
    """
    try:
        record = Ledger(client()).find(postback_id)
    except BrokerUnfit:
        return
    if record is None or not (record.sequence or record.is_stub):  # none, or only remembered as revoked
        return
    if record.account == account:
        if record.digest is None or record.digest == _digest_of(account, event, url):
            return
        other = f"another postback of account {account} ({record.origin} {record.code})"
    else:
        other = (
            f"a postback of account {record.account}" if record.account else "a message that is no postback"
        )
    raise IdTaken(
        f"The id {postback_id} is taken by {other}; nothing was sent. Give each event an id of its own: "
        "the same id means the same account, event and url=."
    )


def _digest_of(account: str, event: Event, url: str | None) -> bytes:
    # Loaded only where the id is known already: a program that sends needs no XML otherwise.
    from postbacks.catalogue.xml import render  # noqa: PLC0415
    from postbacks.ledger.digest import digest_of  # noqa: PLC0415

    return digest_of(account, render(event), url)
