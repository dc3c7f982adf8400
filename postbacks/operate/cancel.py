"""Cancel of one postback by its id, whether it has been taken in or not."""

from __future__ import annotations

from typing import Final

from postbacks.broker.client import client
from postbacks.ledger import states
from postbacks.ledger.ledger import Ledger
from postbacks.operate import journal
from postbacks.queue import actions

#: What ``cancel`` returns of an id that the ledger does not have yet.
REMEMBERED: Final = "remembered"
#: States after which it is not sent any more.
NOT_SENT: Final = frozenset({states.CANCELLED, states.HELD, REMEMBERED})


def cancel(postback_id: str, *, by: str | None = None, why: str = "") -> str:
    """Cancel a postback; return its state afterwards.

    ``held``: the worker that has it does not send it any more. ``sending``: its POST is open, and is not repeated should it
    fail. ``remembered``: the ledger does not have it yet, and it is not sent should it be taken in. A final state other than
    ``cancelled``: it was in it already.

    Args:
        postback_id: its id.
        by: who asks; without it the user of this process.
        why: in words, for the journal.

    Raises:
        BrokerError: the broker cannot be used.
    """
    ledger = Ledger(client())
    record = ledger.find(postback_id)
    state = actions.cancel(postback_id)
    if record is None:
        state = REMEMBERED
    elif state == states.SENDING:
        state = ledger.get(postback_id).state
    if state not in states.FINAL_STATES - {states.CANCELLED}:
        details = {} if record is None else {"account": record.account, "was": record.state}
        journal.write("cancel", postback_id, why=why, details=details, by=by)
    return state
