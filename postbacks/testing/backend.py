"""Result backend of captured postbacks: they never end, unless they are revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from celery import states
from celery.exceptions import TaskRevokedError, TimeoutError  # noqa: A004 - Celery's, which its callers catch

from postbacks.celeryext.result_backend import LedgerBackend
from postbacks.ledger.record import id_text
from postbacks.ledger.states import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID

    from celery import Celery

    from postbacks.testing.outbox import Outbox


class OutboxBackend(LedgerBackend):
    """Mirrors ``LedgerBackend``; differs in reading an outbox instead of the ledger, and in never waiting."""

    def __init__(self, app: Celery, outbox: Outbox) -> None:
        super().__init__(app)
        self._outbox = outbox

    def _get_task_meta_for(self, task_id: str | UUID) -> dict[str, Any]:
        revoked = id_text(task_id) in self._outbox.revoked
        return {
            "task_id": id_text(task_id),
            "status": states.REVOKED if revoked else states.PENDING,
            "result": TaskRevokedError("revoked") if revoked else None,
            "traceback": None,
            "children": [],
        }

    def wait_for_pending(
        self, result: Any, timeout: float | None = None, interval: float = 0.5, **options: Any
    ) -> Any:
        """Raise at once what the real call would raise when its time is over: nothing that is captured is sent."""
        del timeout, interval
        if result.state not in states.READY_STATES:
            _refuse_to_wait(result.id)
        return result.maybe_throw(propagate=options.get("propagate", True), callback=options.get("callback"))

    def get_many(
        self, task_ids: Iterable[str | UUID], *_: Any, **__: Any
    ) -> Iterator[tuple[str | UUID, Any]]:
        """Yield id and meta of those that were revoked, then raise for the first that never ends."""
        for task_id in task_ids:
            meta = self._get_task_meta_for(task_id)
            if meta["status"] not in states.READY_STATES:
                _refuse_to_wait(meta["task_id"])
            yield task_id, meta

    def task_result_exists(self, task_id: str | UUID) -> bool:
        """Tell whether the outbox has the postback."""
        return any(postback.id == id_text(task_id) for postback in self._outbox)

    def cancel(self, postback_id: str, account: str = "") -> str:
        """Mark the id as revoked in the outbox."""
        del account
        self._outbox.revoked.add(postback_id)
        return CANCELLED


def _refuse_to_wait(postback_id: str) -> NoReturn:
    raise TimeoutError(
        f"Postback {postback_id} is captured, so it is not sent and never ends: look at what captured_postbacks() "
        "recorded, or wait for a result with the fixture postbacks_stack, which sends."
    )
