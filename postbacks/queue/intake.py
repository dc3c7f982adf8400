"""Intake: turns Celery's messages into records: decode, look the account up, route, render, accept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from postbacks.accounts import Account, AccountStore, find_accounts
from postbacks.accounts.routing import EXPIRED, end_of, route
from postbacks.broker import memory
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.catalogue.opt_outs import is_opt_out, words_of
from postbacks.catalogue.xml import render
from postbacks.errors import BrokerError, PostbacksError
from postbacks.flower_events import events as task_events
from postbacks.flower_events.publisher import publisher
from postbacks.killpoints import reach
from postbacks.ledger.digest import digest_of, raw_digest
from postbacks.ledger.footprint import overhead_of_records
from postbacks.ledger.record import MAX_REASON, SCHEMA, shortened
from postbacks.ledger.states import DEAD, WAITING
from postbacks.logs import EventLog, unquoted
from postbacks.names import check_name
from postbacks.queue import acceptance, routes
from postbacks.queue.message import MAPPED, MAX_BODY_BYTES, NEWER, Message, Unreadable, decode, find_id
from postbacks.queue.rows import AcceptRow, TakenIn
from postbacks.queue.scripts import ALONE_DEATHS_MAX, Scripts
from postbacks.queue.send_request import SendRequest, bind_arguments, check_request
from postbacks.queue.shares import shares_of
from postbacks.settings import Settings
from postbacks.urls import endpoint_of

log = EventLog(__name__)

#: How much of an unreadable message is kept with it.
MAX_RAW_BYTES: Final = 65_536
#: How large a message may be that is kept whole, as it can be read another time: the largest body that is read, as
#: base64, and as much again. A larger one is kept as an unreadable one is.
MAX_WHOLE_BYTES: Final = 3 * MAX_BODY_BYTES

#: Messages that one ``accept.lua`` takes; more would hold the broker up for all others (300 MB of documents: 16 s).
MAX_BATCH_BYTES: Final = 1 << 20
MAX_BATCH: Final = 250


class Intake:
    """Takes messages out of Celery's queue into the ledger and the lanes.

    Args:
        scripts: the scripts of the broker.
        accounts: where accounts are looked up.
        settings: the process's settings.
    """

    def __init__(self, scripts: Scripts, accounts: AccountStore, settings: Settings) -> None:
        self._scripts = scripts
        self._accounts = accounts
        self._settings = settings
        self._opt_out_words = words_of(settings.opt_out_words)

    def run(
        self, token: str, deadline_s: float, on_first_batch: Callable[[int], None] = lambda _: None
    ) -> tuple[int, bool]:
        """Take messages in until the queue is empty or the deadline (time.monotonic()) has come.

        Args:
            token: the tick's name at the intake's lease.
            deadline_s: when to end.
            on_first_batch: called once with the number of messages taken in, when as many as
                ``POSTBACKS_INTAKE_BATCH`` are in their lanes and there may be more.

        Returns:
            How many messages were taken in, and whether there may be more.
        """
        try:
            return self._run(token, deadline_s, on_first_batch)
        except BaseException:
            # Whatever failed (an account store, the broker), this process lives: no message is suspected of it.
            with suppress(BrokerError):
                self._scripts.end_intake(token)
            raise

    def _run(self, token: str, deadline_s: float, on_first_batch: Callable[[int], None]) -> tuple[int, bool]:
        lease_ms = int(self._settings.intake_lease_s * 1000)
        total = 0
        announced = False
        while True:
            taken = self._scripts.take_in(token, lease_ms, self._settings.intake_batch)
            if taken is None:
                return total, False
            if not taken.messages:
                self._scripts.end_intake(token)
                return total, False
            for messages in _batches(taken):
                if taken.alone_deaths >= ALONE_DEATHS_MAX:
                    rows = [_poison_row(messages[0], taken.alone_deaths)]
                else:
                    if taken.at_once == 1:
                        self._scripts.accept_alone(token)
                    reach("intake:accepting")
                    rows = self._rows_of([(_decoded(raw), raw) for raw in messages])
                if not self._accept(token, len(messages), rows):
                    return total, True  # the lease was lost: another tick does these
                total += len(messages)
                if time.monotonic() >= deadline_s:
                    self._scripts.end_intake(token)
                    return total, True
            if not announced and total >= self._settings.intake_batch:
                announced = True
                on_first_batch(total)

    def accept_one(self, message: Message) -> None:
        """Accept a single postback, as a worker does that was given the queue ``postbacks`` itself."""
        token = f"one:{message.id}"
        lease_ms = int(self._settings.intake_lease_s * 1000)
        deadline_s = time.monotonic() + 2 * self._settings.intake_lease_s
        while self._scripts.take_in(token, lease_ms, 0) is None:
            if time.monotonic() > deadline_s:
                raise PostbacksError(f"Postback {message.id}: the intake is held by another process.")
            time.sleep(0.05)
        # What a dead tick left in the intake stays there for the next one.
        accepted = self._accept(token, 0, self._rows_of([(message, b"")]))
        self._scripts.end_intake(token)
        if not accepted:
            raise PostbacksError(f"Postback {message.id}: the intake's lease was lost; try again.")

    def _rows_of(self, messages: Sequence[tuple[Message | Unreadable, bytes]]) -> list[AcceptRow]:
        """Check messages, look their accounts up and return a row for each."""
        checked = [(message, _request_of(message), raw) for message, raw in messages]
        names = {request.account for _, request, _ in checked if isinstance(request, SendRequest)}
        accounts = find_accounts(self._accounts, sorted(names))
        expiring = any(isinstance(message, Message) and message.expires for message, _ in messages)
        now = self._now() if expiring else None
        keep_ms = int(self._settings.account_removed_keep_s * 1000)
        routes.publish(self._scripts, names, accounts, keep_ms=keep_ms, store=self._accounts)
        rows: list[AcceptRow] = []
        for message, request, raw in checked:
            if isinstance(message, Unreadable) or not isinstance(request, SendRequest):
                rows.append(_rejected_row(message, request, raw))
                continue
            try:
                rows.append(
                    _accepted_row(message, request, accounts.get(request.account), now, self._opt_out_words)
                )
            except Exception as error:
                log.exception("intake.failed", account=request.account, id=message.id)
                fault = PostbacksError(f"it could not be accepted: {error!r}")
                rows.append(_rejected_row(message, fault, raw))
        return rows

    def _now(self) -> datetime:
        """Return the broker's time: this machine's may be wrong."""
        with broker_errors():
            ms = now_ms(self._scripts.client) + self._scripts.clock_offset_ms
        return datetime.fromtimestamp(ms / 1000, UTC)

    def _accept(self, token: str, messages: int, rows: list[AcceptRow]) -> bool:
        """Have rows accepted and log what came of them; False where the intake's lease was lost."""
        may_take = shares_of(memory.limit_of(self._scripts.client), self._settings)
        overhead_bytes = overhead_of_records(self._scripts.client)
        results = self._scripts.accept(
            token, SCHEMA, may_take.units, may_take.documents_bytes, messages, rows, overhead_bytes
        )
        if results is None:
            log.warning("intake.lease_lost", "the next tick takes these messages in", token=token)
            return False
        acceptance.set_apart(self._scripts, rows, results)
        publisher.add(task_events.accepted, results, rows)
        acceptance.report(self._scripts, rows, results)
        return True


def _decoded(raw: bytes) -> Message | Unreadable:
    try:
        return decode(raw)
    except Unreadable as unreadable:
        return unreadable


def _request_of(message: Message | Unreadable) -> SendRequest | PostbacksError | None:
    """Check the arguments of a message; None where it is unreadable."""
    if isinstance(message, Unreadable):
        return None
    try:
        return check_request(message.args, message.kwargs)
    except PostbacksError as error:
        return error
    except Exception as error:
        # Whatever one message does to us, its neighbours go out.
        log.exception("intake.failed", id=message.id)
        return PostbacksError(f"it could not be read: {error!r}")


def _batches(taken: TakenIn) -> Iterator[list[bytes]]:
    """Split the taken messages into batches, one ``accept.lua`` call each.

    A batch has at most ``MAX_BATCH`` messages and ``MAX_BATCH_BYTES``; after a death ``at_once`` messages.
    """
    if taken.at_once:  # how it goes on after these is asked anew
        yield taken.messages[: taken.at_once]
        return
    batch: list[bytes] = []
    size = 0
    for message in taken.messages:
        if batch and (len(batch) == MAX_BATCH or size + len(message) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message)
    yield batch


def _accepted_row(
    message: Message,
    request: SendRequest,
    account: Account | None,
    now: datetime | None,
    opt_out_words: frozenset[str],
) -> AcceptRow:
    event = request.event
    url, reason = route(account, event.origin, event.group, request.url)
    state = WAITING if url else end_of(reason)
    if message.expires is not None and now is not None and message.expires <= now:
        state, reason = DEAD, EXPIRED
    document = render(event)
    return AcceptRow(
        id=message.id,
        account=request.account,
        group=event.group,
        origin=event.origin,
        code=event.code,
        url=url or "",
        endpoint=endpoint_of(url) if url else "",
        xml=document,
        state=state,
        reason=reason,
        message=b"",
        due_ms=int(message.eta.timestamp() * 1000) if message.eta else "",
        digest=digest_of(request.account, document, request.url),
        own="0" if request.url is None else "2" if account is None else "1",
        opt_out="1" if is_opt_out(event.origin, event.code, document, opt_out_words) else "",
    )


def _rejected_row(
    message: Message | Unreadable, error: SendRequest | PostbacksError | None, raw: bytes
) -> AcceptRow:
    """Return the row of a message that is no postback: kept among the dead with its reason."""
    if isinstance(message, Unreadable):
        message_id, reason, account, origin, code = message.message_id, message.reason, "", "", ""
    else:
        message_id, reason = message.id, str(error)
        account, origin, code = _claimed_names(message)
    reason, whole = shortened(reason, MAX_REASON), reason.startswith((NEWER, MAPPED))
    if whole and len(raw) > MAX_WHOLE_BYTES:
        whole = False
        reason = f"the message has {len(raw):,} bytes, of which {MAX_RAW_BYTES:,} are kept: {reason}"
    log.error("intake.unreadable", unquoted(reason)[:500], account=account or None, id=message_id)
    return AcceptRow(
        id=message_id,
        account=account,
        group="",
        origin=origin.encode("utf-8", "replace"),
        code=code.encode("utf-8", "replace"),
        url="",
        endpoint="",
        xml=b"",
        state=DEAD,
        reason=reason.encode("utf-8", "replace"),
        message=raw if whole else raw[:MAX_RAW_BYTES],
        due_ms="",
        digest=raw_digest(raw),
        own="0",
    )


def _poison_row(raw: bytes, deaths: int) -> AcceptRow:
    """Return the row of a message that killed every tick which took it in alone: unread, as reading it may be what kills."""
    reason = f"poison: {deaths} processes died while they took it in alone"
    return _rejected_row(Unreadable(reason, find_id(raw)), None, raw)


def _claimed_names(message: Message) -> tuple[str, str, str]:
    """Return account, origin and code as a broken message claims them, as far as they can be shown."""
    try:
        account, event, _ = bind_arguments(*message.args, **message.kwargs)
        account = check_name(account)
    except PostbacksError:
        return "", "", ""
    if not isinstance(event, Mapping):
        return account, "", ""
    return account, str(event.get("ORIGIN", ""))[:40], str(event.get("CODE", ""))[:40]
