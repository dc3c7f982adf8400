"""Erasure of one person, step by step, from wherever its request stands.

First the broker: what has ended is erased, what is still to be delivered is waited for, or cancelled. Then the history, then
the broker once more, and last the files that still have what was erased. Each step may be repeated: whoever goes on with a
request of a process that died reads anew what is left.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.flower_events.client_side import revoked
from postbacks.killpoints import reach
from postbacks.ledger import states
from postbacks.logs import EventLog
from postbacks.operate import journal
from postbacks.operate.forget import files, searching
from postbacks.operate.forget.request import CHECK, FILES, HISTORY, LEDGER, Requests
from postbacks.operate.jobs.job import ASKED
from postbacks.queue.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import redis

    from postbacks.operate.forget.person import Person
    from postbacks.operate.forget.request import Receipt
    from postbacks.operate.forget.rows import HistoryPart
    from postbacks.operate.forget.searching import Message
    from postbacks.settings import Settings

    #: Steps: each yields the seconds until the next, 0 for at once.
    Steps = Generator[float, None, None]

log = EventLog(__name__)

#: Fields of a job that may name a person: its filters, and what people wrote.
_JOB_TEXTS: Final = ("query", "why", "note")
#: Seconds between two looks at what is still to be delivered.
LOOK_EVERY_S: Final = 1.0
#: Part of the time that a search for what waits to be taken in may take.
SEARCH_SHARE: Final = 0.1
#: Ids, and messages, that one call of a script erases: each of the latter is searched in a whole list.
ERASE_IDS: Final = 50
ERASE_MESSAGES: Final = 20


class Erasure:
    """Erasure of the person of one request.

    Args:
        client: the broker's client; replies come as bytes.
        settings: of this process.
        request: name of the request.
        history: the history's part; None where there is no history.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        request: str,
        history: HistoryPart | None,
    ) -> None:
        self._client: Any = client
        self._settings = settings
        self._request = request
        self._history = history
        self._requests = Requests(client)
        self._scripts = Scripts(client)

    def steps(self) -> Steps:
        """Do all that is left; yield after each step the seconds until the next.

        Raises:
            BrokerError: the broker cannot be used; begin anew later.
            HistoryError: the database cannot be used; the same.
        """
        requests, request = self._requests, self._request
        while (phase := requests.read(request).phase) in {LEDGER, HISTORY, CHECK}:
            person = requests.person_of(request)
            if person is None:
                break
            if phase == HISTORY:
                if self._history is not None:
                    yield from self._history.steps(person, request)
                requests.note(request, phase=CHECK)
            elif (yield from self._search(person)) or phase == LEDGER:
                requests.note(request, phase=HISTORY)
            else:
                requests.lose_person(request)
            reach(f"after:forget-{phase}")
        if requests.read(request).phase == FILES:
            yield from files.rewrite_broker(self._client, requests, request)
            if self._history is not None:
                requests.note(request, database=self._history.compact())
            requests.end(request)
            receipt = requests.read(request)
            journal.write(
                "forget.end", receipt.pseudonym, details=_counts(receipt), by=receipt.by, broker=self._client
            )
            log.warning(
                "forget.ended",
                "what identified this person is erased",
                person=receipt.pseudonym,
                **_counts(receipt),
            )

    # -- the broker -----------------------------------------------------------------------------

    def _search(self, person: Person) -> Generator[float, None, bool]:
        """Search the broker until nothing of the person is left there; return True where anything was found."""
        has_found = False
        while True:
            began_s = time.monotonic()
            pending = yield from self._take_messages(person)
            pending += self._rewrite_jobs(person)
            has_erased, still_open = yield from self._read_records(person)
            took_s = time.monotonic() - began_s
            has_found = has_found or bool(pending or has_erased or still_open)
            while still_open := self._follow(still_open):
                self._requests.note(self._request, waiting=pending + len(still_open))
                yield LOOK_EVERY_S
            self._requests.note(self._request, waiting=pending)
            if not pending:
                return has_found
            yield max(LOOK_EVERY_S, took_s / SEARCH_SHARE)

    def _is_due(self, receipt: Receipt) -> bool:
        """Tell whether what is still to be delivered is cancelled by now."""
        with broker_errors():
            return receipt.now or now_ms(self._client) >= receipt.until_ms

    def _rewrite_jobs(self, person: Person) -> int:
        """Put the pseudonym into jobs that were chosen by the person; return how many have not frozen their set yet."""
        pseudonym, waiting = self._requests.read(self._request).pseudonym, 0
        with broker_errors():
            for job in self._client.zrange(keys.JOBS, 0, -1):
                key = keys.JOB + text(job)
                state, *texts = self._client.hmget(key, "state", *_JOB_TEXTS)
                for name, before in zip(_JOB_TEXTS, texts, strict=True):
                    after = _without(person, name, text(before or b""), pseudonym)
                    if after == text(before or b""):
                        continue
                    if text(state or b"") == ASKED:  # its set is chosen by what stands there
                        waiting += 1
                    else:
                        self._client.hset(key, name, after)
        return waiting

    def _take_messages(self, person: Person) -> Generator[float, None, int]:
        """List the messages that wait to be taken in, take them out where that is wanted; return how many are left."""
        key, pending = keys.FORGET_MESSAGES + self._request, 0
        with broker_errors():
            is_listed = self._client.hexists(keys.FORGET + self._request, "listed")
        for page in searching.messages(self._client, person):
            with broker_errors():
                if not is_listed and page:
                    self._client.sadd(key, *(name for message in page for name in message.names))
                listed = {text(name) for name in self._client.smembers(key)} if page else set()
            covered = [message for message in page if listed.intersection(message.names)]
            if covered and self._is_due(self._requests.read(self._request)):
                covered = self._take_out(covered)
            pending += len(covered)
            yield 0.0
        self._requests.note(self._request, listed=1)
        return pending

    def _take_out(self, messages: Sequence[Message]) -> list[Message]:
        """Take messages out of the queue; return those that a tick or a worker has by now."""
        left = [message for message in messages if message.is_held]
        free = [message for message in messages if not message.is_held]
        lease_ms = int(self._settings.intake_lease_s * 1000)
        for first in range(0, len(free), ERASE_MESSAGES):
            some = free[first : first + ERASE_MESSAGES]
            gone = self._scripts.erase_messages(self._request, lease_ms, [message.raw for message in some])
            for message, is_gone in zip(some, gone, strict=True):
                if not is_gone:
                    left.append(message)
                elif message.id and not self._client.exists(keys.record(message.id)):
                    self._cancel(message.id)  # so that its caller hears of it, and a second copy is not sent
        return left

    def _read_records(self, person: Person) -> Generator[float, None, tuple[bool, list[str]]]:
        """Erase the records that have ended; return whether there were any, and those that have not."""
        with broker_errors():
            listed = {text(name) for name in self._client.smembers(keys.FORGET_MESSAGES + self._request)}
        requested_ms = self._requests.read(self._request).requested_ms
        has_erased, still_open, later = False, [], 0
        for page in searching.records(self._client, person):
            covered = [
                record
                for record in page
                if record.created_ms <= requested_ms or listed.intersection(record.names)
            ]
            later += len(page) - len(covered)
            has_erased = (
                bool(self._erase([record.id for record in covered if record.has_ended])) or has_erased
            )
            still_open += [record.id for record in covered if not record.has_ended]
            yield 0.0
        self._requests.note(self._request, later=later)
        return has_erased, still_open

    def _follow(self, postback_ids: Sequence[str]) -> list[str]:
        """Erase what has ended since, cancel what is to be; return what is still open."""
        is_due = self._is_due(self._requests.read(self._request))
        pipe = self._client.pipeline(transaction=False)
        pipe.zrange(keys.PAUSED, 0, -1)
        for postback_id in postback_ids:
            pipe.hmget(keys.record(postback_id), "state", "account")
        with broker_errors():
            names, *rows = pipe.execute()
        paused = set(map(text, names))
        ended, still_open = [], []
        for postback_id, row in zip(postback_ids, rows, strict=True):
            state, account = (text(value or b"") for value in row)
            if state and state not in states.FINAL_STATES and (is_due or account in paused):
                state = self._cancel(postback_id)
            if state in states.FINAL_STATES:
                ended.append(postback_id)
            elif state:
                still_open.append(postback_id)
        self._erase(ended)
        return still_open

    def _cancel(self, postback_id: str) -> str:
        state = self._scripts.cancel(postback_id, int(self._settings.retention_dead_s))
        if state == states.CANCELLED:
            revoked(postback_id)
        return state

    def _erase(self, postback_ids: Sequence[str]) -> int:
        reach("before:forget-erase")
        return sum(
            self._scripts.erase(self._request, postback_ids[first : first + ERASE_IDS])
            for first in range(0, len(postback_ids), ERASE_IDS)
        )


def _without(person: Person, name: str, written: str, pseudonym: str) -> str:
    """Return a text of a job without the person; its filters are JSON, which escapes what people write into a number."""
    if name != "query" or not written:
        return person.without(written, pseudonym)
    filters = json.loads(written)
    return json.dumps(
        {
            name: person.without(of_it, pseudonym) if isinstance(of_it, str) else of_it
            for name, of_it in filters.items()
        }
    )


def _counts(receipt: Receipt) -> dict[str, Any]:
    """Return what a log line and the journal have of a request that has ended."""
    names = ("records", "answers", "cancelled", "messages", "rows", "documents", "values", "later")
    return {"request": receipt.request} | {name: getattr(receipt, name) for name in names}
