"""``app.control``, with a ``revoke`` that lasts."""

from __future__ import annotations

from typing import Any

from celery.app.control import Control

from postbacks.broker import client
from postbacks.ledger.states import CANCELLED
from postbacks.queue.message import is_id
from postbacks.queue.scripts import Scripts
from postbacks.settings import load
from postbacks.taskevents import revoked


def cancel(postback_id: str) -> str:
    """Cancel a postback; returns the state it is in afterwards (``sending`` if its POST is open).

    An id that is not known yet is remembered as long as a dead postback would be kept.
    """
    if not is_id(postback_id):
        return ""
    state = Scripts(client()).cancel(postback_id, int(load().retention_dead_s))
    if state == CANCELLED:
        revoked(postback_id)
    return state


class PostbackControl(Control):
    """Mirrors ``celery.app.control.Control``; differs in cancelling in the ledger first.

    Stock Celery marks an id in the memory of the workers that happen to run, and nowhere else.
    """

    def revoke(self, task_id: Any, *args: Any, **options: Any) -> Any:
        """Cancel postbacks by id (or list of ids), then tell the workers as ever."""
        for one in [task_id] if isinstance(task_id, str) else list(task_id or ()):
            cancel(one)
        return super().revoke(task_id, *args, **options)
