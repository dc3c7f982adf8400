"""The app's ``control``, with a ``revoke`` that lasts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from celery.app.control import Control

from postbacks.celeryext.capture import current
from postbacks.errors import UnsupportedOption
from postbacks.ledger.record import id_text
from postbacks.queue.actions import cancel
from postbacks.queue.protocol import TASK_NAME


class PostbackControl(Control):
    """Mirrors ``celery.app.control.Control``; differs in cancelling in the ledger first.

    Stock Celery marks an id in the memory of the workers that happen to run, and nowhere else.
    """

    def revoke(self, task_id: Any, *args: Any, **options: Any) -> Any:
        """Cancel postbacks by id (or list of ids), then tell the workers as ever."""
        several = not isinstance(task_id, str | UUID)
        ids = [id_text(postback_id) for postback_id in (task_id or ())] if several else [id_text(task_id)]
        if (capture := current()) is not None:
            for postback_id in ids:
                capture.backend.cancel(postback_id)
            return None
        for postback_id in ids:
            cancel(postback_id)
        return super().revoke(ids if several else ids[0], *args, **options)

    def revoke_by_stamped_headers(self, headers: Any, *_: Any, **__: Any) -> Any:
        """Refuse: Celery would mark the stamps in the workers' memory, which cancels no postback."""
        del headers
        raise UnsupportedOption(
            "Postbacks cannot be revoked by their stamps: revoke them by id, app.control.revoke([id, …])."
        )

    def election(self, id: str, topic: str, action: Any = None, **options: Any) -> Any:  # noqa: A002 - Celery's
        """Refuse to let workers elect who sends a postback: without gossip none would, and nobody would know."""
        if isinstance(action, Mapping) and action.get("task") == TASK_NAME:
            raise UnsupportedOption("send_postback cannot be sent by election(): send it with delay().")
        return super().election(id, topic, action, **options)
