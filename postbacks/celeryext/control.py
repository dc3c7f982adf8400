"""``app.control``, with a ``revoke`` that lasts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from celery.app.control import Control

from postbacks.broker.client import client
from postbacks.errors import UnsupportedOption
from postbacks.flower_events.client_side import revoked
from postbacks.ledger.record import id_text
from postbacks.ledger.states import CANCELLED
from postbacks.queue.message import TASK_NAME, is_id
from postbacks.queue.scripts import Scripts
from postbacks.settings import load


def cancel(postback_id: str | UUID, account: str = "") -> str:
    """Cancel a postback; returns the state it is in afterwards (``sending`` if its POST is open).

    An id that is not known yet is remembered as long as a dead postback would be kept; the first postback that comes
    with it is cancelled then.

    Args:
        postback_id: its id.
        account: cancel this account's alone; empty for whosever it is.
    """
    known_id = id_text(postback_id)
    if not is_id(known_id):
        return ""
    state = Scripts(client()).cancel(known_id, int(load().retention_dead_s), account)
    if state == CANCELLED:
        revoked(known_id)
    return state


class PostbackControl(Control):
    """Mirrors ``celery.app.control.Control``; differs in cancelling in the ledger first.

    Stock Celery marks an id in the memory of the workers that happen to run, and nowhere else.
    """

    def revoke(self, task_id: Any, *args: Any, **options: Any) -> Any:
        """Cancel postbacks by id (or list of ids), then tell the workers as ever."""
        several = not isinstance(task_id, str | UUID)
        ids = [id_text(each) for each in (task_id or ())] if several else [id_text(task_id)]
        for postback_id in ids:
            cancel(postback_id)
        return super().revoke(ids if several else ids[0], *args, **options)

    def revoke_by_stamped_headers(self, headers: Any, *_: Any, **__: Any) -> Any:
        """Refuse: the workers' memory, where Celery would mark the stamps, cancels no postback."""
        del headers
        raise UnsupportedOption(
            "Postbacks cannot be revoked by their stamps: revoke them by id, app.control.revoke([id, …])."
        )

    def election(self, id: str, topic: str, action: Any = None, **options: Any) -> Any:  # noqa: A002 - Celery's
        """Refuse to let workers elect who sends a postback: without gossip none would, and nobody would know."""
        if isinstance(action, Mapping) and action.get("task") == TASK_NAME:
            raise UnsupportedOption("send_postback cannot be sent by election(): send it with delay().")
        return super().election(id, topic, action, **options)
