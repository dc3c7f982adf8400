"""From messages to records: decode, look the account up, route, render, accept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from postbacks.accounts import Account, AccountStore, find_accounts
from postbacks.accounts.routing import EXPIRED, end_of, route
from postbacks.broker.client import broker_errors
from postbacks.catalogue.xml import render
from postbacks.errors import BrokerError, PostbacksError
from postbacks.flower_events import events as task_events
from postbacks.flower_events.publisher import publisher
from postbacks.killpoints import reach
from postbacks.ledger.digest import digest_of, raw_digest
from postbacks.ledger.record import MAX_REASON, SCHEMA, shortened
from postbacks.ledger.states import DEAD, WAITING
from postbacks.logs import EventLog, unquoted
from postbacks.names import check_name
from postbacks.queue import acceptance, memory, routes
from postbacks.queue.message import MAPPED, MAX_BODY_BYTES, NEWER, Message, Unreadable, decode, find_id
from postbacks.queue.scripts import ALONE_DEATHS_MAX, Argument, Scripts, TakenIn
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

#: Messages that one script accepts; more would hold the broker up for all others (300 MB of documents: 16 s).
MAX_PORTION_BYTES: Final = 1 << 20
MAX_PORTION: Final = 250


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

    def run(
        self, token: str, deadline_s: float, on_many: Callable[[int], None] = lambda _: None
    ) -> tuple[int, bool]:
        """Take in until the queue is empty or the deadline (time.monotonic()) has come.

        Args:
            token: the tick's name at the intake's lease.
            deadline_s: when to end.
            on_many: told how many were taken in when there are more than one batch, once the first is in its lanes.

        Returns:
            How many messages were taken in, and whether there may be more.
        """
        try:
            return self._run(token, deadline_s, on_many)
        except BaseException:
            # Whatever failed (an account store, the broker), this process lives: no message is suspected of it.
            with suppress(BrokerError):
                self._scripts.end_intake(token)
            raise

    def _run(self, token: str, deadline_s: float, on_many: Callable[[int], None]) -> tuple[int, bool]:
        lease_ms = int(self._settings.intake_lease_s * 1000)
        total = 0
        told = False
        while True:
            taken = self._scripts.take_in(token, lease_ms, self._settings.intake_batch)
            if taken is None:
                return total, False
            if not taken.messages:
                self._scripts.end_intake(token)
                return total, False
            for messages in _portions(taken):
                if taken.alone_deaths >= ALONE_DEATHS_MAX:
                    fields = list(_poison(messages[0], taken.alone_deaths))
                else:
                    if taken.at_once == 1:
                        self._scripts.accept_alone(token)
                    reach("intake:accepting")
                    fields = self._orders(messages)
                if not self._accept(token, len(messages), fields):
                    return total, True  # the lease was lost: another tick does these
                total += len(messages)
                if time.monotonic() >= deadline_s:
                    self._scripts.end_intake(token)
                    return total, True
            if not told and total >= self._settings.intake_batch:
                told = True
                on_many(total)

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
        accepted = self._accept(token, 0, self._fields_of([(message, b"")]))
        self._scripts.end_intake(token)
        if not accepted:
            raise PostbacksError(f"Postback {message.id}: the intake's lease was lost; try again.")

    def _orders(self, messages: Sequence[bytes]) -> list[Argument]:
        read: list[tuple[Message | Unreadable, bytes]] = []
        for raw in messages:
            try:
                read.append((decode(raw), raw))
            except Unreadable as unreadable:
                read.append((unreadable, raw))
        return self._fields_of(read)

    def _fields_of(self, read: Sequence[tuple[Message | Unreadable, bytes]]) -> list[Argument]:
        orders: list[
            tuple[Message, SendRequest | PostbacksError, bytes] | tuple[Unreadable, None, bytes]
        ] = []
        for message, raw in read:
            if isinstance(message, Unreadable):
                orders.append((message, None, raw))
                continue
            try:
                orders.append((message, check_request(message.args, message.kwargs), raw))
            except PostbacksError as error:
                orders.append((message, error, raw))
            except Exception as error:
                # Whatever one message does to us, its neighbours go out.
                log.exception("intake.failed", id=message.id)
                orders.append((message, PostbacksError(f"it could not be read: {error!r}"), raw))
        wanted = {order.account for _, order, _ in orders if isinstance(order, SendRequest)}
        accounts = find_accounts(self._accounts, sorted(wanted))
        expiring = any(isinstance(message, Message) and message.expires for message, _ in read)
        now = self._now() if expiring else None
        keep_ms = int(self._settings.account_removed_keep_s * 1000)
        routes.publish(self._scripts, wanted, accounts, keep_ms=keep_ms, store=self._accounts)
        fields: list[Argument] = []
        for message, order, raw in orders:
            if isinstance(message, Unreadable) or not isinstance(order, SendRequest):
                fields += _broken(message, order, raw)
                continue
            try:
                fields += _sound(message, order, accounts.get(order.account), now)
            except Exception as error:
                log.exception("intake.failed", account=order.account, id=message.id)
                fields += _broken(message, PostbacksError(f"it could not be accepted: {error!r}"), raw)
        return fields

    def _now(self) -> datetime:
        """The broker's time: this machine's may be wrong."""
        with broker_errors():
            seconds, microseconds = self._scripts.client.time()
        ms = seconds * 1000 + microseconds // 1000 + self._scripts.clock_offset_ms
        return datetime.fromtimestamp(ms / 1000, UTC)

    def _accept(self, token: str, messages: int, fields: list[Argument]) -> bool:
        may_take = shares_of(memory.limit_of(self._scripts.client), self._settings)
        results = self._scripts.accept(
            token, SCHEMA, may_take.units, may_take.documents_bytes, messages, fields
        )
        if results is None:
            log.warning("intake.lease_lost", "the next tick takes these messages in", token=token)
            return False
        acceptance.set_apart(self._scripts, fields, results)
        publisher.add(task_events.accepted, results, fields)
        acceptance.report(self._scripts, fields, results)
        return True


def _portions(taken: TakenIn) -> Iterator[list[bytes]]:
    """What is accepted by one script each: what may be accepted at once, of large messages only some."""
    if taken.at_once:  # after a death: how it goes on is asked anew
        yield taken.messages[: taken.at_once]
        return
    portion: list[bytes] = []
    size = 0
    for message in taken.messages:
        if portion and (len(portion) == MAX_PORTION or size + len(message) > MAX_PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += len(message)
    yield portion


def _sound(
    message: Message, order: SendRequest, account: Account | None, now: datetime | None
) -> tuple[Argument, ...]:
    event = order.event
    url, reason = route(account, event.origin, event.group, order.url)
    place = WAITING if url else end_of(reason)
    if message.expires is not None and now is not None and message.expires <= now:
        place, reason = DEAD, EXPIRED
    due = int(message.eta.timestamp() * 1000) if message.eta else ""
    document = render(event)
    own = "0" if order.url is None else "2" if account is None else "1"
    return (
        message.id, order.account, event.group, event.origin, event.code,
        url or "", endpoint_of(url) if url else "", document, place, reason, b"", due,
        digest_of(order.account, document, order.url), own,
    )  # fmt: skip


def _broken(
    message: Message | Unreadable, error: SendRequest | PostbacksError | None, raw: bytes
) -> tuple[Argument, ...]:
    """A message that is no postback: kept among the dead with its reason."""
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
    texts = (text.encode("utf-8", "replace") for text in (origin, code, reason))
    origin_bytes, code_bytes, reason_bytes = texts
    return (
        message_id, account, "", origin_bytes, code_bytes, "", "", b"", DEAD, reason_bytes,
        raw if whole else raw[:MAX_RAW_BYTES], "", raw_digest(raw), "0",
    )  # fmt: skip


def _poison(raw: bytes, deaths: int) -> tuple[Argument, ...]:
    """A message that killed every tick that took it in alone: set aside unread, as reading it may be what kills."""
    reason = f"poison: {deaths} processes died while they took it in alone"
    return _broken(Unreadable(reason, find_id(raw)), None, raw)


def _claimed_names(message: Message) -> tuple[str, str, str]:
    """What a broken order says of itself, as far as it can be shown."""
    try:
        account, event, _ = bind_arguments(*message.args, **message.kwargs)
        account = check_name(account)
    except PostbacksError:
        return "", "", ""
    if not isinstance(event, Mapping):
        return account, "", ""
    return account, str(event.get("ORIGIN", ""))[:40], str(event.get("CODE", ""))[:40]
