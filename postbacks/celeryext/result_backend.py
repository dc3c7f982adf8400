"""Celery's result backend: reads the ledger and stores nothing.

``AsyncResult.state`` and ``.get()`` of a postback come from its record. Celery's meta wants an exception as the result of
RETRY and FAILURE; ``errors.DeliveryError`` carries the facts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from celery import states as celery_states
from celery.backends.base import BaseBackend
from celery.exceptions import TaskRevokedError, TimeoutError  # noqa: A004 - Celery's, which its callers catch
from celery.result import ResultSet

from postbacks.broker.client import client
from postbacks.errors import PostbackDead, PostbackFailed, PostbackSkipped, UnsupportedOption
from postbacks.ledger import states
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import Record, id_text, iso
from postbacks.privacy.masker import KEYLESS
from postbacks.queue.actions import cancel

#: Celery's state for each of a postback's. One that a failure was before is RETRY, whether it waits, is held or is parked;
#: one that is parked and was never sent is PENDING (``meta_of``).
CELERY_STATES: Final = {
    states.WAITING: celery_states.PENDING,
    states.HELD: celery_states.PENDING,
    states.SENDING: celery_states.STARTED,
    states.PARKED: celery_states.RETRY,
    states.DELIVERED: celery_states.SUCCESS,
    states.DEAD: celery_states.FAILURE,
    states.SKIPPED: celery_states.FAILURE,
    states.CANCELLED: celery_states.REVOKED,
}


def info_of(record: Record) -> dict[str, Any]:
    """Return ``AsyncResult.info`` of a postback that did not fail."""
    last = record.attempts[-1] if record.attempts else None
    return {
        "account": record.account,
        "origin": record.origin,
        "code": record.code,
        "state": record.state,
        "outcome": last.outcome if last else None,
        "status": last.status if last else None,
        "attempts": len(record.attempts),
        "next_at": iso(record.next_ms),
    }


def meta_for(account: str, meta: dict[str, Any]) -> dict[str, Any]:
    """Return an id's meta as this account sees it: the record of another one is a failure (``id_taken``).

    Args:
        account: the account; empty sees every record as it is.
        meta: the id's meta, from ``meta_of``.
    """
    of_account = meta.get("account", "")
    if not account or not of_account or of_account == account:
        return meta
    if not meta["taken_in"]:  # revoked by another account before either came: this one's may still come
        return {**meta, "status": celery_states.PENDING, "result": None}
    from postbacks.accounts.routing import ID_TAKEN  # noqa: PLC0415 - seldom; else a sender would load the accounts

    error = PostbackDead(
        f"Postback {meta['task_id']} is account {of_account}'s, not {account}'s: the id was taken (id_taken). "
        "What was sent under it is kept as dead under an id of its own.",
        ID_TAKEN,
    )
    return {**meta, "status": celery_states.FAILURE, "result": error}


def meta_of(postback_id: str, record: Record | None) -> dict[str, Any]:
    """Return Celery's result meta for a record; an id that the ledger does not have yet is PENDING."""
    meta: dict[str, Any] = {
        "task_id": postback_id,
        "status": celery_states.PENDING,
        "result": None,
        "traceback": None,
        "children": [],
    }
    if record is None:
        return meta
    meta["account"], meta["taken_in"] = record.account, bool(record.sequence) or record.is_stub
    status = CELERY_STATES[record.state]
    last = record.attempts[-1] if record.attempts else None
    reason = KEYLESS.reason(record.reason)  # errors are logged
    name = f"Postback {record.id} ({record.account} {record.origin} {record.code})"
    facts = (
        last.outcome if last and (record.ended_by_attempt or record.ended_ms is None) else reason or None,
        last.status if last else None,
        len(record.attempts),
        iso(record.next_ms),
    )
    result: object = info_of(record)
    if record.state in {states.WAITING, states.HELD} and record.failures and last is not None:
        status = celery_states.RETRY  # on its way to the next attempt
        result = PostbackFailed(f"{name}: attempt {last.number} failed; it is sent again now", *facts)
    elif record.state == states.PARKED and last is None:
        status = celery_states.PENDING  # the caller's own countdown: nothing has been tried yet
    elif record.state == states.PARKED and last is not None:
        words = last.detail or last.outcome
        result = PostbackFailed(
            f"{name}: attempt {last.number} failed: {words}; sent again at {facts[3]}", *facts
        )
    elif record.state == states.DEAD:
        words = (
            f"after {len(record.attempts)} attempts: {last.detail or last.outcome}"
            if last and record.ended_by_attempt
            else reason
        )
        result = PostbackDead(f"{name} is dead: {words}", *facts)
    elif record.state == states.SKIPPED:
        result = PostbackSkipped(f"{name} was skipped: {reason}", *facts)
    elif record.state == states.CANCELLED:
        result = TaskRevokedError("revoked")
    meta["status"], meta["result"] = status, result
    if record.ended_ms is not None:
        meta["date_done"] = iso(record.ended_ms)
    return meta


class LedgerBackend(BaseBackend):
    """Reads results from the ledger.

    Mirrors ``celery.backends.base.BaseBackend``; differs in storing nothing, and in refusing groups and chords.
    """

    persistent = True
    supports_native_join = False
    supports_autoexpire = True
    #: Lets ``GroupResult.then`` take a callback; the look that finds the last result ended calls it.
    is_async = True

    def _get_task_meta_for(self, task_id: str | UUID) -> dict[str, Any]:
        postback_id = id_text(task_id)
        return meta_of(postback_id, Ledger(client()).find(postback_id))

    def wait_for_pending(
        self, result: Any, timeout: float | None = None, interval: float = 0.5, **options: Any
    ) -> Any:
        """Wait until a postback has ended.

        Mirrors ``celery.backends.base.SyncBackendMixin.wait_for_pending``; differs in asking the result, which knows
        its account, and so in not waiting for the end of another account's postback.
        """
        if options.get("on_message") is not None:
            return super().wait_for_pending(result, timeout, interval, **options)  # which refuses it
        self._ensure_not_eager()
        deadline_s = math.inf if timeout is None else time.monotonic() + timeout
        on_interval: Callable[[], None] | None = options.get("on_interval")
        while result.state not in celery_states.READY_STATES:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("The operation timed out.")
            if on_interval is not None:
                on_interval()
            time.sleep(min(interval, left_s))
        return result.maybe_throw(propagate=options.get("propagate", True), callback=options.get("callback"))

    def iter_native(self, result: Any, **options: Any) -> Iterator[tuple[str | UUID, Any]]:
        """Yield id and meta of each result of a set as soon as it has ended, each as its account sees it.

        Mirrors ``celery.backends.base.SyncBackendMixin.iter_native``; differs in knowing the results' accounts.
        """
        self._ensure_not_eager()
        accounts: dict[str | UUID, str] = {}
        for member in result.results:
            if isinstance(member, ResultSet):
                yield member.id, member.results
            else:
                accounts[member.id] = getattr(member, "account", "")
        yield from self.get_many(accounts, accounts=accounts, **options)

    def task_result_exists(self, task_id: str | UUID) -> bool:
        """Tell whether the ledger has the postback, in any state; before it is taken in, it is not there."""
        return Ledger(client()).find(id_text(task_id)) is not None

    def get_many(
        self,
        task_ids: Iterable[str | UUID],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        accounts: Mapping[str | UUID, str] | None = None,
    ) -> Iterator[tuple[str | UUID, dict[str, Any]]]:
        """Yield id, as it was given, and meta of each postback as soon as it has ended.

        For ``iter_native`` and ``join_native``.

        Mirrors ``celery.backends.base.BaseKeyValueStoreBackend.get_many``; differs in reading the ledger, and in
        ``accounts``: by id the account that sees the record.

        Raises:
            TimeoutError: Celery's, when ``timeout`` seconds are over and one has not ended.
        """
        del no_ack
        given_ids = {id_text(task_id): task_id for task_id in task_ids}
        ledger, pending = Ledger(client()), list(given_ids)
        deadline_s = math.inf if timeout is None else time.monotonic() + timeout
        rounds = 0
        while pending:
            records = ledger.find_many(pending)
            metas = {
                postback_id: meta_for(
                    (accounts or {}).get(given_ids[postback_id], ""), meta_of(postback_id, record)
                )
                for postback_id, record in records.items()
            }
            pending = [
                postback_id
                for postback_id, meta in metas.items()
                if meta["status"] not in celery_states.READY_STATES
            ]
            for postback_id in metas.keys() - set(pending):
                if on_message is not None:
                    on_message(metas[postback_id])
                yield given_ids[postback_id], metas[postback_id]
            rounds += 1
            if not pending or rounds == max_iterations:
                return
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"{len(pending)} of the postbacks had not ended after {timeout} s.")
            if on_interval is not None:
                on_interval()
            time.sleep(min(interval or 0.5, left_s))

    def cancel(self, postback_id: str, account: str = "") -> str:
        """Cancel a postback, of this account alone where one is given; return the state it is in afterwards."""
        return cancel(postback_id, account)

    def store_result(self, task_id: str, result: Any, *_: Any, **__: Any) -> Any:
        """Store nothing: only deliveries decide a postback's state."""
        del task_id
        return result

    def _forget(self, task_id: str) -> None:
        raise UnsupportedOption(
            f"Postback {task_id} cannot be forgotten: the ledger keeps it for its retention."
        )

    def _save_group(self, group_id: str, result: Any) -> None:
        del result
        raise _no_groups(f"Group {group_id} cannot be saved")

    def _restore_group(self, group_id: str) -> None:
        raise _no_groups(f"Group {group_id} cannot be restored")

    def _delete_group(self, group_id: str) -> None:
        raise _no_groups(f"Group {group_id} cannot be deleted")

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Refuse: a postback may take half an hour, a chord is no place to wait for it."""
        del chord_id, result
        raise _no_chords()

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_: Any) -> None:
        """Do nothing: no task of ours is part of a chord."""

    def apply_chord(self, *_: Any, **__: Any) -> None:
        """Refuse: see ``add_to_chord``."""
        raise _no_chords()

    def cleanup(self) -> None:
        """Do nothing: the tick drops records past their retention."""


def _no_groups(what: str) -> UnsupportedOption:
    return UnsupportedOption(
        f"{what}: keep its ids ([result.id for result in group]), and look each up: send_postback.AsyncResult(id)."
    )


def _no_chords() -> UnsupportedOption:
    return UnsupportedOption(
        "Postbacks cannot be part of a chord, which would wait for them: send them in a group or with "
        "send_postbacks(account, events)."
    )
