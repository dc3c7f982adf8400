"""Requests that a person be forgotten: their state in the broker, from which any process goes on.

A request is one hash:

==================  ==================================================================================================
``kind``, ``hash``  of the person's value; they go when nothing more is searched for
``pseudonym``       name of the person for people
``by``, ``why``     who asked, and why
``now``             1: what is still to be delivered is cancelled at once
``requested_ms``    when it came; what is accepted later is another matter
``until_ms``        when what is still to be delivered is cancelled
``listed``          1: the messages that waited to be taken in are listed
``phase``           one of ``PHASES``
``ended_ms``        when it ended
``waiting``         postbacks that are still to be delivered
``later``           postbacks that were accepted after it, and are left alone
others              counts, and what came of the files: ``Receipt`` has them by their names
==================  ==================================================================================================
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import PostbacksError
from postbacks.ledger.record import iso
from postbacks.operate.forget.person import Person

if TYPE_CHECKING:
    import redis

#: What is done one after the other: the broker's records and messages, the history's rows, the broker once more (something
#: may have been put back from the history meanwhile), the files.
LEDGER, HISTORY, CHECK, FILES, ENDED = "ledger", "history", "check", "files", "ended"
PHASES: Final = (LEDGER, HISTORY, CHECK, FILES, ENDED)

#: Time for which what is still to be delivered is waited for.
DELIVER_MS: Final = 24 * 3_600_000
#: Seconds for which a receipt is kept in the broker.
RECEIPT_S: Final = 7 * 86_400

#: What no request reaches, whatever stands.
NEVER_REACHED: Final = (
    "backups of the broker and of the history",
    "receivers, which were sent what was delivered",
    "logs and monitors outside of postbacks, such as Flower's memory",
    "names and the like that people wrote into the journal",
    "texts of other people that mention the person",
)


#: Fields of a receipt that are no numbers.
_TEXTS: Final = frozenset({"pseudonym", "by", "why", "phase", "append_only", "snapshot", "database"})


class Receipt(NamedTuple):
    """State of a request, and at its end what it has reached. Times are ms of the broker's clock.

    Attributes:
        request: name of the request.
        pseudonym: the person's.
        by: who asked.
        why: why.
        now: True where what was still to be delivered was cancelled at once.
        phase: one of ``PHASES``.
        requested_ms: when it came.
        until_ms: when what is still to be delivered is cancelled.
        ended_ms: when it ended; None before.
        waiting: postbacks that are still to be delivered.
        later: postbacks that were accepted after it, and are left alone.
        records: records that were erased.
        answers: notes of attempts of them that were emptied.
        cancelled: postbacks of them that were cancelled for it.
        messages: messages that were taken from the queue or the intake.
        rows: rows of the history that were erased.
        documents: documents of them.
        values: entries of the index of business values.
        append_only: what came of the broker's append-only file, a clause.
        snapshot: the same of its snapshot (RDB).
        database: the same of the history's free pages.
        replicas: replicas of the broker, whose own files it does not reach.
    """

    request: str
    pseudonym: str
    by: str
    why: str
    now: bool
    phase: str
    requested_ms: int
    until_ms: int
    ended_ms: int | None = None
    waiting: int = 0
    later: int = 0
    records: int = 0
    answers: int = 0
    cancelled: int = 0
    messages: int = 0
    rows: int = 0
    documents: int = 0
    values: int = 0
    append_only: str = ""
    snapshot: str = ""
    database: str = ""
    replicas: int = 0

    @property
    def not_reached(self) -> tuple[str, ...]:
        """Name what it cannot reach, and what came too late for it."""
        replicas = f"files of {self.replicas:,} replica{'s' * (self.replicas != 1)} of the broker"
        later = f"{self.later:,} postback{'s' * (self.later != 1)} accepted after {iso(self.requested_ms)}"
        return ((replicas,) if self.replicas else ()) + NEVER_REACHED + ((later,) if self.later else ())

    def to_public_dict(self) -> dict[str, Any]:
        """Return the receipt as ``postbacks forget --json`` prints it."""
        fields = {name: value for name, value in self._asdict().items() if not name.endswith("_ms")}
        times = {
            "requested": iso(self.requested_ms),
            "until": iso(self.until_ms),
            "ended": iso(self.ended_ms),
        }
        return fields | times | {"not_reached": list(self.not_reached)}


class Requests:
    """Requests on one broker.

    Args:
        client: the broker's client; replies come as bytes.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client

    def start(self, person: Person, pseudonym: str, *, now: bool, by: str, why: str) -> str:
        """Leave a request; return its name. One of the same person that is under way is that request.

        Args:
            person: who is to be forgotten.
            pseudonym: name of the person for people.
            now: cancel what is still to be delivered; one under way does so from now on.
            by: who asks.
            why: why.
        """
        with broker_errors():
            for request in self.open():
                if self.person_of(request) == person:
                    if now:
                        self._client.hset(keys.FORGET + request, "now", 1)
                    return request
            request = uuid.uuid4().hex[:12]
            asked_ms = now_ms(self._client)
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(
                keys.FORGET + request,
                mapping={
                    "kind": person.kind, "hash": person.hash, "pseudonym": pseudonym, "by": by, "why": why,
                    "now": int(now), "requested_ms": asked_ms, "until_ms": asked_ms + DELIVER_MS, "phase": LEDGER,
                },
            )  # fmt: skip
            pipe.zadd(keys.FORGETS, {request: asked_ms})
            pipe.execute()
        return request

    def open(self) -> list[str]:
        """Return the requests that are under way, the oldest first."""
        with broker_errors():
            return [text(request) for request in self._client.zrange(keys.FORGETS, 0, -1)]

    def person_of(self, request: str) -> Person | None:
        """Return who is searched for; None where nothing more is."""
        with broker_errors():
            kind, digest = self._client.hmget(keys.FORGET + request, "kind", "hash")
        return None if digest is None else Person(text(kind), int(digest))

    def read(self, request: str) -> Receipt:
        """Read how far a request is.

        Raises:
            PostbacksError: the broker does not have it (any more).
        """
        with broker_errors():
            pairs = self._client.hgetall(keys.FORGET + request)
        fields = {text(name): text(value) for name, value in pairs.items()}
        if "phase" not in fields:
            raise PostbacksError(f"There is no request {request}; the broker keeps a receipt for a week.")
        known: dict[str, Any] = {
            name: fields[name] if name in _TEXTS else int(fields[name])
            for name in Receipt._fields
            if name in fields
        }
        return Receipt(**known | {"request": request, "now": bool(known["now"])})

    def note(self, request: str, **fields: str | int) -> None:
        """Write fields of a request."""
        with broker_errors():
            self._client.hset(keys.FORGET + request, mapping=fields)

    def add(self, request: str, **counts: int) -> None:
        """Add to counts of a request."""
        with broker_errors():
            pipe = self._client.pipeline(transaction=True)
            for name, count in counts.items():
                pipe.hincrby(keys.FORGET + request, name, count)
            pipe.execute()

    def lose_person(self, request: str) -> None:
        """Drop what a request knows of its person: nothing more is searched for."""
        with broker_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.hdel(keys.FORGET + request, "kind", "hash", "listed")
            pipe.delete(keys.FORGET_MESSAGES + request)
            pipe.hset(keys.FORGET + request, "phase", FILES)
            pipe.execute()

    def end(self, request: str) -> None:
        """Note the end of a request; its receipt stays for a while."""
        with broker_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(
                keys.FORGET + request,
                mapping={"phase": ENDED, "ended_ms": now_ms(self._client), "waiting": 0},
            )
            pipe.zrem(keys.FORGETS, request)
            pipe.expire(keys.FORGET + request, RECEIPT_S)
            pipe.execute()
