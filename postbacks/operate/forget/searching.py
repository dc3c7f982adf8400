"""Search for a person in the broker: messages that wait to be taken in, and records, in pages that hold nobody up.

The pages come in the order in which a postback moves, the queue before the intake and the records last: so what moves on while
they are read is met all the same.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.ledger import states
from postbacks.ledger.digest import raw_digest
from postbacks.queue.message import find_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from postbacks.operate.forget.person import Person

#: Messages, and records, that one call reads.
MESSAGES: Final = 200
RECORDS: Final = 500
#: Where kombu keeps what a worker has taken of the queue itself and not acknowledged (kombu 5.7, ``Channel.unacked_key``).
UNACKED: Final = "unacked"

_FIELDS: Final = ("state", "created_ms", "account", "forgotten", "first_id", "digest", "reason", "raw", "xml")


class Message(NamedTuple):
    """Message about a person.

    Attributes:
        raw: as it stands in its list.
        names: its id, and the digest that its record has where it cannot be read.
        is_held: a worker has it, and nobody else may take it.
    """

    raw: bytes
    names: tuple[str, ...]
    is_held: bool

    @property
    def id(self) -> str:
        """The postback's id; empty where it has none."""
        return self.names[0] if len(self.names) > 1 else ""


class Found(NamedTuple):
    """Record of a postback of a person.

    Attributes:
        id: its id.
        state: as the record names it.
        account: its account.
        created_ms: when it was accepted.
        names: its own id, the one that it came with, and its digest: one of them is its message's.
    """

    id: str
    state: str
    account: str
    created_ms: int
    names: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """True where nothing is to be delivered any more."""
        return self.state in states.FINAL_STATES


def messages(client: redis.Redis, person: Person) -> Iterator[list[Message]]:
    """Yield page by page what is about the person and waits to be taken in."""
    pages: Any = client
    for key in (*keys.QUEUE_LISTS, keys.INTAKE):
        start = 0
        while True:
            with broker_errors():
                # from the left, where new ones come: what leaves on the right meanwhile moves nothing past the page
                raws = pages.lrange(key, start, start + MESSAGES - 1)
            yield [_message(raw) for raw in raws if person.is_named_in_message(raw)]
            start += MESSAGES
            if len(raws) < MESSAGES:
                break
    cursor = None
    while cursor != 0:
        with broker_errors():
            cursor, held = pages.hscan(UNACKED, cursor or 0, count=MESSAGES)
        raws = [raw for value in held.values() if (raw := _unpacked(value))]
        yield [_message(raw, is_held=True) for raw in raws if person.is_named_in_message(raw)]


def _message(raw: bytes, *, is_held: bool = False) -> Message:
    names = (find_id(raw), raw_digest(raw).hex())
    return Message(raw, tuple(filter(None, names)), is_held)


def _unpacked(value: bytes) -> bytes:
    """Return the message of an entry of kombu's; empty where it has none."""
    with suppress(ValueError, LookupError, TypeError):
        return json.dumps(json.loads(value)[0]).encode()
    return b""


def records(client: redis.Redis, person: Person) -> Iterator[list[Found]]:
    """Yield page by page the records of the person that still say so."""
    scan: Any = client
    cursor = None
    while cursor != 0:
        with broker_errors():
            cursor, names = scan.scan(cursor or 0, match=f"{keys.RECORD}*", count=RECORDS)
            pipe = scan.pipeline(transaction=False)
            for name in names:
                pipe.hmget(name, *_FIELDS)
            rows = pipe.execute(raise_on_error=False)
        found = []
        for name, row in zip(names, rows, strict=True):
            if not isinstance(row, Exception) and _is_named(
                person, row
            ):  # else somebody has put another type there
                state, created_ms, account, _, first_id, digest, *_ = row
                postback_id = text(name).removeprefix(keys.RECORD)
                all_names = (postback_id, text(first_id or b""), (digest or b"").hex())
                found.append(
                    Found(
                        postback_id,
                        text(state or b""),
                        text(account or b""),
                        int(float(created_ms or 0)),
                        all_names,
                    )
                )
        yield found


def _is_named(person: Person, row: list[bytes | None]) -> bool:
    forgotten, (reason, raw, xml) = row[3], row[6:]
    if forgotten is not None:
        return False
    if xml and person.is_named_in_document(xml):
        return True
    return any(person.is_mentioned(part) for part in (reason, raw) if part)
