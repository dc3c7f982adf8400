"""Preview of a job: what its set would be, asked of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.history.query import Query
    from postbacks.operate.jobs.job import Preview

#: Postbacks that a preview shows.
SAMPLE: Final = 5


def preview(kind: str, query: Query | None = None, *, ids: Iterable[str] = ()) -> Preview:
    """Count what a job would move, by account, and show some of it. Nothing is changed.

    Args:
        kind: ``resend`` or ``cancel``.
        query: as of ``start``.
        ids: as of ``start``.

    Raises:
        InvalidQuery: as ``start``.
        HistoryOff, HistoryError: the history cannot be asked.
        BrokerError: the broker cannot be used.
    """
    raise NotImplementedError
