"""Count of what a request would reach, before anything is erased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
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
        paused: of these those of paused accounts, which are cancelled at once.
        messages: messages that wait to be taken in.
        rows: rows of the history; None where no history is set.
        database_bytes: size of its database, which is written anew; None where no history is set.
    """

    records: int
    waiting: int
    paused: int
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
    records = waiting = of_paused = 0
    broker: Any = client
    with broker_errors():
        names = set(map(text, broker.zrange(keys.PAUSED, 0, -1)))
    for page in searching.records(client, person):
        records += len(page)
        waits = [record for record in page if not record.has_ended]
        waiting += len(waits)
        of_paused += sum(record.account in names for record in waits)
    if not settings.history_url:
        return Count(records, waiting, of_paused, messages, None, None)
    # Loaded only where there is a history: SQLAlchemy is an extra.
    from postbacks.history import erasing  # noqa: PLC0415
    from postbacks.history.engine import reader  # noqa: PLC0415
    from postbacks.history.status import measure  # noqa: PLC0415
    from postbacks.history.transactions import reading  # noqa: PLC0415

    engine = reader(settings)
    with reading(engine) as connection:
        rows = len(erasing.find(connection, person.hash))
    return Count(records, waiting, of_paused, messages, rows, measure(engine)["disk_bytes"])
