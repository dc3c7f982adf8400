"""Live states: what the broker says now of postbacks that history does not have at their end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker import client as broker
from postbacks.broker.client import text
from postbacks.broker.clock import to_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError
from postbacks.history.query import Count
from postbacks.ledger import states
from postbacks.ledger.record import Attempt
from postbacks.privacy.masker import KEYLESS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import redis

    from postbacks.history.query import Postback

#: Records that one pipeline reads.
PAGE: Final = 1000
_SENDING: Final = states.SENDING.encode()
#: Notes of attempts that are read with each record.
_NOTES_READ: Final = 6
_STATE_FIELDS: Final = ("created_ms", "state", "attempts")
_FIELDS: Final = (*_STATE_FIELDS, "reason", "ended_ms")
_NOTES: Final = tuple(f"attempt:{number}" for number in range(1, _NOTES_READ + 1))


class Reading(NamedTuple):
    """Postbacks as the broker has them.

    Attributes:
        postbacks: in the order in which they were given; one whose record has left the broker is as it was given.
        read_ms: the broker's time of the reading; None where none was read.
    """

    postbacks: list[Postback]
    read_ms: int | None


class Acceptance(NamedTuple):
    """Acceptance of an id, and the state in which history has it."""

    id: str
    accepted_ms: int
    state: str


def is_open(postback: Postback) -> bool:
    """Tell whether history does not have a postback at its end."""
    return postback.state in {states.WAITING, states.PARKED}


def read(client: redis.Redis | None, postbacks: Sequence[Postback]) -> Reading:
    """Read the records of those that are not at their end; without a reachable broker all stay as history has them."""
    unfinished = [postback for postback in postbacks if is_open(postback)]
    if not unfinished:
        return Reading(list(postbacks), None)
    wanted = [(postback.id, (*_FIELDS, *_NOTES)) for postback in unfinished]
    try:
        client = client or broker.client()
        read_ms, records = _read_fields(client, wanted)
        # More notes than that are there only of what was sent again by hand.
        more = [number for number, record in enumerate(records) if _attempts(record) > _NOTES_READ]
        wanted = [(unfinished[number].id, (*_FIELDS, *_notes(records[number]))) for number in more]
        records_by_hand = _read_fields(client, wanted)[1] if more else []
    except BrokerError:
        return Reading(list(postbacks), None)
    for number, record in zip(more, records_by_hand, strict=True):
        records[number] = record
    now = {
        postback.row_id: _now(postback, record) for postback, record in zip(unfinished, records, strict=True)
    }
    return Reading([now.get(postback.row_id, postback) for postback in postbacks], read_ms)


def count(client: redis.Redis | None, state: str, acceptances: Iterable[Sequence[Acceptance]]) -> Count:
    """Count those that are in a state now, of batches of unfinished ones; without a reachable broker, as history has them."""
    by_history = by_broker = 0
    read_ms = None
    is_reachable = True
    for batch in acceptances:
        by_history += sum(acceptance.state == state for acceptance in batch)
        if not is_reachable:
            continue
        try:
            client = client or broker.client()
            batch_ms, now = read_states(client, batch)
            by_broker += now.count(state)
            read_ms = read_ms or batch_ms
        except BrokerError:
            is_reachable = False
    return Count(by_broker, None, read_ms) if is_reachable else Count(by_history, None)


def read_states(client: redis.Redis, batch: Sequence[Acceptance]) -> tuple[int, list[str]]:
    """Read the states alone; only of those that are being sent or held, the latest attempt too."""
    wanted: list[tuple[str, tuple[str, ...]]] = [(acceptance.id, _STATE_FIELDS) for acceptance in batch]
    read_ms, records = _read_fields(client, wanted)
    claimed = [number for number, record in enumerate(records) if record.get("state") == _SENDING]
    if claimed:
        wanted = [(batch[number].id, (*_STATE_FIELDS, *_notes(records[number]))) for number in claimed]
        for number, record in zip(claimed, _read_fields(client, wanted)[1], strict=True):
            records[number] = record
    return read_ms, [
        _state_of(record) if _is_of(record, acceptance.accepted_ms) else acceptance.state
        for acceptance, record in zip(batch, records, strict=True)
    ]


def _notes(record: Mapping[str, bytes]) -> tuple[str, str]:
    """Name the notes of the latest two attempts: of the one that may be open, and of the one that has ended."""
    return f"attempt:{_attempts(record)}", f"attempt:{_attempts(record) - 1}"


def _read_fields(
    client: redis.Redis, wanted: Sequence[tuple[str, tuple[str, ...]]]
) -> tuple[int, list[dict[str, bytes]]]:
    """Read fields of records, ``PAGE`` in a pipeline; a field that is not there is left out."""
    read_ms, records = None, []
    for start in range(0, len(wanted), PAGE):
        part = wanted[start : start + PAGE]
        pipe: Any = client.pipeline(transaction=False)
        pipe.time()
        for postback_id, fields in part:
            pipe.hmget(keys.record(postback_id), *fields)
        with broker_errors():
            time, *replies = pipe.execute()
        read_ms = read_ms or to_ms(time)
        records += [
            {name: value for name, value in zip(fields, reply, strict=True) if value is not None}
            for (_, fields), reply in zip(part, replies, strict=True)
        ]
    return read_ms or 0, records


def _is_of(record: Mapping[str, bytes], accepted_ms: int) -> bool:
    """Tell whether a record is of an acceptance: its id may stand for a later one by now, or for none."""
    return "state" in record and record.get("created_ms") == b"%d" % accepted_ms


def _attempts(record: Mapping[str, bytes]) -> int:
    attempts = record.get("attempts", b"")
    return int(attempts) if attempts.isdigit() else 0


def _state_of(record: Mapping[str, bytes]) -> str:
    noted = {int(name.partition(":")[2]) for name in record if name.startswith("attempt:")}
    return states.reported(text(record["state"]), _attempts(record), noted)


def _now(postback: Postback, record: Mapping[str, bytes]) -> Postback:
    """Return a postback as its record says; as it was given where that cannot be read."""
    try:
        return _as_of_record(postback, record)
    except (ValueError, TypeError, OverflowError):
        return postback


def _as_of_record(postback: Postback, record: Mapping[str, bytes]) -> Postback:
    if not _is_of(record, postback.accepted_ms):
        return postback
    notes = [Attempt.from_json(value) for name, value in record.items() if name.startswith("attempt:")]
    latest = max(notes, key=lambda note: note.number, default=None)
    return replace(
        postback,
        state=_state_of(record),
        reason=KEYLESS.reason(text(record.get("reason", b""))),
        ended_ms=int(float(record["ended_ms"])) if "ended_ms" in record else None,
        attempts=_attempts(record),
        outcome=latest.outcome if latest else postback.outcome,
        status=(latest and latest.status) or postback.status,
        elapsed_ms=latest.elapsed_ms if latest else postback.elapsed_ms,
    )
