"""The future of a postback, as Celery's callers know it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from celery.result import AsyncResult

from postbacks.control import cancel
from postbacks.ledger.record import id_text


class PostbackResult(AsyncResult):
    """The future of a postback: its id is the postback's id, its state comes from the ledger."""

    def __init__(self, id: str | UUID, *args: Any, **kwargs: Any) -> None:  # noqa: A002 - Celery's name
        super().__init__(id_text(id), *args, **kwargs)

    def revoke(self, *_: Any, **__: Any) -> None:
        """Cancel the postback if it waits or is parked; one whose POST is open is not sent again.

        Mirrors ``celery.result.AsyncResult.revoke``; differs in cancelling in the ledger, where it
        lasts, and not in the memory of the workers that happen to run.
        """
        cancel(self.id)
