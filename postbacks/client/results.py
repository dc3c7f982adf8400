"""The future of a postback, as Celery's callers know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery.result import AsyncResult

from postbacks.errors import PostbackFailed
from postbacks.ledger.record import id_text


class PostbackResult(AsyncResult):
    """The future of a postback: its id is the postback's id, its state comes from the ledger."""

    if TYPE_CHECKING:  # Celery has no types
        id: str
        task_id: str
        state: str
        status: str

        def get(self, timeout: float | None = None, **options: Any) -> dict[str, Any]: ...
        def ready(self) -> bool: ...
        def successful(self) -> bool: ...
        def failed(self) -> bool: ...

    def __init__(self, id: str | UUID, *args: Any, **kwargs: Any) -> None:  # noqa: A002 - Celery's name
        super().__init__(id_text(id), *args, **kwargs)
        #: The account that the call was for; empty where a result is looked up by its id alone.
        self.account = ""

    def _maybe_set_cache(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Let the record of another account read as a failure: the id was taken.

        Mirrors ``celery.result.AsyncResult._maybe_set_cache``; differs in judging whose record it is.
        """
        from postbacks.celeryext.result_backend import meta_for  # noqa: PLC0415 - Celery loads it with the first look

        own_meta: dict[str, Any] = super()._maybe_set_cache(meta_for(self.account, meta))
        return own_meta

    def revoke(self, *_: Any, **__: Any) -> None:
        """Cancel the postback if it waits or is parked; one whose POST is open is not sent again.

        Mirrors ``celery.result.AsyncResult.revoke``; differs in cancelling in the ledger, where it
        lasts, and not in the memory of the workers that happen to run; and in cancelling the account's
        alone where a call has made this result.
        """
        self.backend.cancel(self.id, self.account)


def eager_ids(results: Sequence[Any]) -> list[str]:
    """Return the ids of what was POSTed in eager mode; ids alone would hide the failures, so they are raised.

    Raises:
        PostbackFailed: how many failed, and why the first did.
    """
    failed = [(number, result) for number, result in enumerate(results, start=1) if not result.successful()]
    if failed:
        number, result = failed[0]
        raise PostbackFailed(
            f"{len(failed)} of {len(results)} postbacks failed in eager mode; event {number}: {result.result}"
        ) from result.result
    return [result.id for result in results]
