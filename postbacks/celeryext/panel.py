"""The worker's ``revoke`` command, which cancels in the ledger."""

from __future__ import annotations

from typing import Any

from celery.worker.control import Panel, ok

from postbacks.queue.actions import cancel


def register_revoke() -> None:
    """Put our ``revoke`` in the place of Celery's, in this worker."""
    Panel.register(name="revoke", type="control", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")(
        _revoke
    )


def _revoke(state: Any, task_id: Any, *_: Any, **__: Any) -> Any:
    """Cancel postbacks by id (or list of ids).

    Mirrors ``celery.worker.control.revoke``; differs in cancelling in the ledger: stock Celery only
    marks an id in the memory of the workers that run at that moment.
    """
    del state
    ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
    states = {postback_id: cancel(postback_id) for postback_id in ids if isinstance(postback_id, str)}
    return ok(f"postbacks {states} flagged as revoked")
