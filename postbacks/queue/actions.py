"""Actions on one postback, by its id: cancel it, or send it again where it is dead."""

from __future__ import annotations

from uuid import UUID

from postbacks.broker.client import client
from postbacks.flower_events.client_side import resent, revoked
from postbacks.ledger.record import id_text
from postbacks.ledger.states import CANCELLED, WAITING
from postbacks.names import is_id
from postbacks.queue.scripts import Scripts
from postbacks.settings import load


def cancel(postback_id: str | UUID, account: str = "") -> str:
    """Cancel a postback; return the state it is in afterwards (``sending`` if its POST is open).

    An id that is not known yet is remembered as long as a dead postback would be kept; the first postback that comes
    with it is cancelled then.

    Args:
        postback_id: its id.
        account: cancel only a postback of this account; empty for any.
    """
    text = id_text(postback_id)
    if not is_id(text):
        return ""
    state = Scripts(client()).cancel(text, int(load().retention_dead_s), account)
    if state == CANCELLED:
        revoked(text)
    return state


def resend(postback_id: str | UUID, *, by: str = "") -> str:
    """Send a dead postback again, the same bytes; return its state afterwards, empty if its id is unknown.

    A message that was of a newer version is taken in again instead: ``queued``.

    Args:
        postback_id: its id.
        by: who sends it again, for its record.
    """
    text = id_text(postback_id)
    state = Scripts(client()).replay(text, by)
    if state == WAITING:
        resent(text)
    return state
