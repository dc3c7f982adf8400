"""Resend of one postback by its id, from the broker or, where its record has left it, from the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from postbacks.accounts import find_account
from postbacks.accounts.routing import POISON, reason_words, route
from postbacks.broker.client import client
from postbacks.errors import HistoryOff, PostbacksError, UnknownPostback
from postbacks.flower_events.client_side import resent
from postbacks.ledger import states
from postbacks.ledger.digest import digest_of
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.reasons import forgotten_words, reason_of
from postbacks.ledger.record import SCHEMA
from postbacks.operate import journal
from postbacks.operate.identity import current_user
from postbacks.operate.jobs.job import FORGOTTEN
from postbacks.queue import actions
from postbacks.queue.rows import PutBackRow
from postbacks.queue.scripts import Scripts
from postbacks.urls import endpoint_of

if TYPE_CHECKING:
    from postbacks.accounts import Account
    from postbacks.history.copies import Copy
    from postbacks.ledger.record import Record

#: States that a postback is sent again from.
RESENT_FROM = frozenset({states.DEAD, states.SKIPPED})


class Resent(NamedTuple):
    """Postback that waits to be sent again.

    Attributes:
        record: as it was before.
        from_history: True where the broker had lost it, and its bytes come from the history.
        doubt: why the history may not know what became of it last, a sentence; empty where it knows.
    """

    record: Record
    from_history: bool
    doubt: str = ""


def resend(postback_id: str, *, by: str | None = None, why: str = "") -> Resent:
    """Send a dead or skipped postback again, the same bytes.

    Args:
        postback_id: its id.
        by: who asks; without it the user of this process.
        why: in words, for the journal.

    Raises:
        UnknownPostback: neither the ledger nor the history has it.
        PostbacksError: it is not dead or skipped, has nothing to send, or nowhere to go.
        HistoryError: the broker does not have it, and the history cannot be asked.
        BrokerError: the broker cannot be used.
    """
    who = by or current_user()
    record = Ledger(client()).find(postback_id)
    if record is None:
        from postbacks.history import status  # noqa: PLC0415 - the broker has nearly all that is sent again

        record = _put_back(postback_id, who)
        _note(record, who, why)
        return Resent(record, from_history=True, doubt=status.doubt(client()))
    _check(record)
    if words := forgotten_words(record):
        raise PostbacksError(f"Postback {record.id} cannot be sent again: {words}.")
    if record.is_stub:
        raise PostbacksError(f"Postback {record.id} has nothing to send: {reason_of(record)}.")
    if not record.own_url and record.account and find_account(record.account) is None:
        raise PostbacksError(
            f"Postback {record.id} has nowhere to go: account {record.account} is not known; set it first."
        )
    if actions.resend(record.id, by=who) in RESENT_FROM:
        raise PostbacksError(f"Postback {record.id} has nothing to send: {reason_of(record)}.")
    _note(record, who, why)
    return Resent(record, from_history=False)


def _note(record: Record, by: str, why: str) -> None:
    details = {"account": record.account, "was": record.state}
    journal.write("resend", record.id, why=why, details=details, by=by)


def _put_back(postback_id: str, by: str) -> Record:
    from postbacks.history import copies_of  # noqa: PLC0415 - the broker has nearly all that is sent again

    try:
        known = copies_of(postback_id).copies
    except HistoryOff as error:
        raise UnknownPostback(f"The ledger has no postback {postback_id}. {error}") from None
    if not known:
        raise UnknownPostback(f"Neither the ledger nor the history has a postback {postback_id}.")
    newest = known[0]
    record = newest.record
    _check(record)
    if words := forgotten_words(record):
        raise PostbacksError(f"Postback {record.id} cannot be sent again: {words}.")
    if newest.no_document:
        raise PostbacksError(f"Postback {record.id} has nothing to send: {newest.no_document}.")
    account = find_account(record.account)
    row = put_back_row(newest, account)
    if row is None:
        _, reason = route(account, record.origin, record.group, None)
        words = reason_words(reason, record.origin, f"account {record.account}")
        raise PostbacksError(f"Postback {record.id} has nowhere to go: {words}; set the account first.")
    state = Scripts(client()).put_back(SCHEMA, row, record.attempts, by)
    if state != states.WAITING:
        raise PostbacksError(f"Postback {record.id} is {state} already.")
    resent(record.id)
    return record


def _check(record: Record) -> None:
    if record.state == FORGOTTEN and record.forgotten_ms is None:
        raise PostbacksError(
            f"Postback {record.id} is forgotten: the broker lost its record before the history had read its end. It may have "
            f"been delivered; `postbacks resend --state forgotten {record.id}` sends it again."
        )
    if record.state not in RESENT_FROM:
        raise PostbacksError(
            f"Postback {record.id} is {record.state}; only a dead or skipped one can be sent again."
        )


def put_back_row(copy: Copy, account: Account | None) -> PutBackRow | None:
    """Return the row of a postback, with the URL that it goes to now; None where it has nowhere to go.

    Args:
        copy: that the history has of it.
        account: as it is now; None where the store does not have it.
    """
    record = copy.record
    own_url = record.url if record.own_url else None
    url, _ = route(account, record.origin, record.group, own_url)
    if url is None:
        return None
    return PutBackRow(
        id=record.id,
        account=record.account,
        group=record.group,
        origin=record.origin,
        code=record.code,
        url=url,
        endpoint=endpoint_of(url),
        xml=record.xml,
        created_ms=record.created_ms,
        sequence=record.sequence,
        attempts=copy.begun,
        digest=digest_of(record.account, record.xml, own_url),
        own=copy.own,
        first_id=record.first_id,
        alone=int(record.reason == POISON),
        opt_out="1" if record.is_opt_out else "",
    )
