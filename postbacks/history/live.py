"""Live states: what the broker says now of postbacks that history does not have at their end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import broker, keys
from postbacks.broker.client import text
from postbacks.broker.clock import to_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError
from postbacks.ledger import states
from postbacks.ledger.record import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import redis

    from postbacks.history.query import Postback

#: Records that one pipeline reads.
PAGE: Final = 1000
#: Attempts whose notes are read with the record: a postback has more only where it was sent again by hand.
_ATTEMPTS_READ: Final = 6
_FIELDS: Final = ("created_ms", "state", "attempts", "reason", "ended_ms")
_NOTES: Final = tuple(f"attempt:{number}" for number in range(1, _ATTEMPTS_READ + 1))


class Reading(NamedTuple):
    """Postbacks as the broker has them.

    Attributes:
        postbacks: in the order in which they were given; one whose record has left the broker is as it was given.
        read_ms: the broker's time of the reading; None where none was read.
    """

    postbacks: list[Postback]
    read_ms: int | None


def is_open(postback: Postback) -> bool:
    """Tell whether history does not have a postback at its end."""
    return postback.state in {states.WAITING, states.PARKED}


def read(client: redis.Redis | None, postbacks: Sequence[Postback]) -> Reading:
    """Read the records of those that are not at their end; without a reachable broker all stay as history has them."""
    open_postbacks = [postback for postback in postbacks if is_open(postback)]
    if not open_postbacks:
        return Reading(list(postbacks), None)
    try:
        if client is None:
            client = broker.client.client()
        now: dict[int, Postback] = {}
        read_ms = None
        for start in range(0, len(open_postbacks), PAGE):
            part = open_postbacks[start : start + PAGE]
            time_ms, records = _read_page(client, part)
            read_ms = read_ms or time_ms
            now |= {
                postback.row_id: _as_of_record(postback, record)
                for postback, record in zip(part, records, strict=True)
            }
    except BrokerError:
        return Reading(list(postbacks), None)
    return Reading([now.get(postback.row_id, postback) for postback in postbacks], read_ms)


def _read_page(client: redis.Redis, postbacks: Sequence[Postback]) -> tuple[int, list[dict[str, bytes]]]:
    time_ms, records = _read_fields(client, ((postback.id, (*_FIELDS, *_NOTES)) for postback in postbacks))
    sent_by_hand = [
        number for number, record in enumerate(records) if int(record.get("attempts", 0)) > _ATTEMPTS_READ
    ]
    if sent_by_hand:
        wanted = [
            (postbacks[number].id, (*_FIELDS, *_latest(int(records[number]["attempts"]))))
            for number in sent_by_hand
        ]
        for number, record in zip(sent_by_hand, _read_fields(client, wanted)[1], strict=True):
            records[number] = record
    return time_ms, records


def _latest(attempts: int) -> tuple[str, str]:
    """Name the notes of the latest two attempts: of the one that may be open, and of the one that has ended."""
    return f"attempt:{attempts}", f"attempt:{attempts - 1}"


def _read_fields(
    client: redis.Redis, wanted: Iterable[tuple[str, tuple[str, ...]]]
) -> tuple[int, list[dict[str, bytes]]]:
    """Read fields of records in one pipeline; a field that is not there is left out."""
    rows = list(wanted)
    pipe: Any = client.pipeline(transaction=False)
    pipe.time()
    for postback_id, fields in rows:
        pipe.hmget(keys.record(postback_id), *fields)
    with broker_errors():
        time, *replies = pipe.execute()
    return to_ms(time), [
        {name: value for name, value in zip(fields, reply, strict=True) if value is not None}
        for (_, fields), reply in zip(rows, replies, strict=True)
    ]


def _as_of_record(postback: Postback, record: dict[str, bytes]) -> Postback:
    """Return a postback as its record has it; as it is where the id stands for another acceptance by now, or for none."""
    if int(record.get("created_ms", -1)) != postback.accepted_ms or "state" not in record:
        return postback
    attempts = int(record.get("attempts", 0))
    notes = [Attempt.from_json(value) for name, value in record.items() if name.startswith("attempt:")]
    changed = replace(
        postback,
        state=states.reported(text(record["state"]), attempts, {note.number for note in notes}),
        reason=text(record.get("reason", b"")),
        ended_ms=int(float(record["ended_ms"])) if "ended_ms" in record else None,
        attempts=attempts,
    )
    if not notes:
        return changed
    latest = max(notes, key=lambda note: note.number)
    return replace(
        changed,
        outcome=latest.outcome,
        status=latest.status or changed.status,
        elapsed_ms=latest.elapsed_ms,
    )
