"""Count of what a request would reach, before anything is erased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from postbacks.operate.forget import searching

if TYPE_CHECKING:
    import redis

    from postbacks.operate.forget.person import Person
    from postbacks.settings import Settings


class Count(NamedTuple):
    """Counts of what names a person.

    Attributes:
        records: records of the broker.
        waiting: of them those that are still to be delivered.
        messages: messages that wait to be taken in.
        rows: rows of the history; None where no history is set.
        database_bytes: size of its database, which is written anew; None where no history is set.
    """

    records: int
    waiting: int
    messages: int
    rows: int | None
    database_bytes: int | None

    def to_public_dict(self) -> dict[str, Any]:
        """Return the counts as ``postbacks forget --dry-run --json`` prints them."""
        return self._asdict()


def count_all(client: redis.Redis, settings: Settings, person: Person) -> Count:
    """Count what names a person in the broker and the history.

    Raises:
        BrokerError: the broker cannot be used.
        HistoryError: the history cannot be read.
    """
    messages = sum(len(page) for page in searching.messages(client, person))
    records = waiting = 0
    for page in searching.records(client, person):
        records += len(page)
        waiting += sum(not record.has_ended for record in page)
    if not settings.history_url:
        return Count(records, waiting, messages, None, None)
    # Loaded only where there is a history: SQLAlchemy is an extra.
    from postbacks.history import erasing  # noqa: PLC0415
    from postbacks.history.engine import reader  # noqa: PLC0415
    from postbacks.history.status import measure  # noqa: PLC0415
    from postbacks.history.transactions import reading  # noqa: PLC0415

    engine = reader(settings)
    with reading(engine) as connection:
        rows = len(erasing.find(connection, person.hash))
    return Count(records, waiting, messages, rows, measure(engine)["disk_bytes"])
