"""Rows of the history of one person: erased by the process that writes it, a few a transaction.

What needs SQLAlchemy, which an extra brings, is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.killpoints import reach
from postbacks.operate.forget.request import Requests

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import redis

    from postbacks.history.erasing import Place
    from postbacks.history.recorder import Recorder
    from postbacks.operate.forget.person import Person

#: Rows of a transaction, for which the recorder waits.
PAGE: Final = 50
#: Seconds between two looks whether the recorder has ended its turn.
LOOK_EVERY_S: Final = 0.1


class HistoryPart:
    """History's part of an erasure.

    Args:
        recorder: the recorder of this process, which works.
        client: the broker's client.
    """

    def __init__(self, recorder: Recorder, client: redis.Redis) -> None:
        self._recorder = recorder
        self._client: Any = client
        self._requests = Requests(client)

    def steps(self, person: Person, request: str) -> Generator[float, None, None]:
        """Erase the person's rows; yield the seconds until the next step.

        A record that the recorder has read before it was erased is written by the end of the recorder's turn. So the rows are
        found after that, and no later turn writes anything of the person.
        """
        from postbacks.history import erasing  # noqa: PLC0415
        from postbacks.history.transactions import reading  # noqa: PLC0415

        turns = self._recorder.turns
        while self._recorder.turns == turns:
            yield LOOK_EVERY_S
        with reading(self._recorder.engine) as connection:
            places = erasing.find(connection, person.hash)
        yield from self._erase(places, request)
        after: int | None = 0
        while after is not None:
            with reading(self._recorder.engine) as connection:
                places, after = erasing.find_messages(connection, person.is_mentioned, after)
            yield from self._erase(places, request)
        with self._recorder.transaction() as connection:
            self._recorder.lose_urls(erasing.drop_urls(connection))

    def compact(self) -> str:
        """Have the database's files written anew; return what came of it as a clause."""
        from postbacks.history import compaction  # noqa: PLC0415

        return compaction.compact(self._recorder.engine)

    def _erase(self, places: Sequence[Place], request: str) -> Generator[float, None, None]:
        from postbacks.history import erasing  # noqa: PLC0415

        for first in range(0, len(places), PAGE):
            page = self._without_later(places[first : first + PAGE])
            if page:
                with broker_errors():
                    forgotten_ms = now_ms(self._client)
                with self._recorder.transaction() as connection:
                    erased = erasing.erase(connection, page, forgotten_ms)
                reach("after:forget-rows")
                self._requests.add(
                    request, rows=erased.rows, documents=erased.documents, values=erased.values,
                )  # fmt: skip
            yield 0.0

    def _without_later(self, places: Sequence[Place]) -> list[Place]:
        """Leave out rows whose postback the broker still has whole: it was accepted after the request."""
        from postbacks.history import erasing  # noqa: PLC0415
        from postbacks.history.transactions import reading  # noqa: PLC0415

        with reading(self._recorder.engine) as connection:
            known = erasing.ids_of(connection, places)
        pipe = self._client.pipeline(transaction=False)
        for postback_id, _ in known.values():
            pipe.hmget(keys.record(postback_id), "created_ms", "forgotten")
        with broker_errors():
            records = pipe.execute(raise_on_error=False)
        whole = {
            row_id
            for (row_id, (_, accepted_ms)), record in zip(known.items(), records, strict=True)
            if not isinstance(record, Exception) and record[0] == b"%d" % accepted_ms and record[1] is None
        }
        return [place for place in places if place.row_id not in whole]
