"""Acceptance in the log: ids that were taken, accounts that nobody knows, full backlogs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.accounts import NO_URL, UNKNOWN_ACCOUNT
from postbacks.broker.errors import broker_errors
from postbacks.ledger.digest import fresh_id, is_same
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.states import ACCEPTED, BACKLOG_FULL, DEAD, ID_TAKEN, KNOWN, STUB
from postbacks.logs import EventLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from postbacks.queue.rows import AcceptRow
    from postbacks.queue.scripts import Scripts

log = EventLog(__name__)

#: Seconds between two lines of the log that say the same of one account.
LOGGED_EVERY_S: Final = 60


def set_apart(scripts: Scripts, rows: list[AcceptRow], results: list[int]) -> None:
    """Log which postbacks are kept as dead because their id is another postback's.

    A digest may differ though the postback is the same: a record of version 0.1.0 has none. So the documents are
    compared before anything is logged; what is the same is dropped again, as it is known already.

    Args:
        scripts: the scripts of the broker.
        rows: the postbacks; one that was set apart gets the id that it is kept under.
        results: what ``accept.lua`` made of each; what turns out to be the same becomes ``KNOWN``.
    """
    if ID_TAKEN not in results:
        return
    ledger = Ledger(scripts.client)
    for number, result in enumerate(results):
        if result != ID_TAKEN:
            continue
        row = rows[number]
        kept_id = fresh_id(row.id, row.digest)
        rows[number] = row._replace(id=kept_id)
        first, kept = ledger.find(row.id), ledger.find(kept_id)
        if first is not None and kept is not None and is_same(first, kept):
            scripts.retract(kept_id)
            results[number] = KNOWN
            continue
        log.error(
            "intake.id_taken",
            "another postback has this id; this one is kept as dead under a new one",
            account=row.account or None,
            id=kept_id,
            taken_id=row.id,
        )


def report(scripts: Scripts, rows: Sequence[AcceptRow], results: Sequence[int]) -> None:
    """Log which accounts have a full backlog, and which are not known or have no URL for what came."""
    full: Counter[str] = Counter()
    stubs: Counter[str] = Counter()
    unrouted: Counter[tuple[str, str]] = Counter()
    for row, result in zip(rows, results, strict=True):
        if result == BACKLOG_FULL:
            full[row.account] += 1
        elif result == STUB:
            stubs[row.account] += 1
        elif result == ACCEPTED and row.state == DEAD and row.reason in {UNKNOWN_ACCOUNT, NO_URL}:
            unrouted[row.account, str(row.reason)] += 1
    for account, count in full.items():
        log.error(
            "intake.backlog_full",
            "too many of the account wait; these are dead, and `postbacks resend` sends them",
            account=account,
            postbacks=count,
        )
    for account, count in stubs.items():
        log.error(
            "intake.stubs",
            "too many of the account wait and are dead; the documents of these are not kept, so that the application must send them again",
            account=account,
            postbacks=count,
        )
    to_be_logged = set(first_in_a_minute(scripts, keys.UNROUTED_LOGGED, [account for account, _ in unrouted]))
    for (account, reason), count in unrouted.items():
        if account not in to_be_logged:
            continue
        log.warning(
            "intake.unrouted",
            "set the account, then `postbacks resend` sends them; nothing more is logged of it for a minute",
            account=account,
            reason=reason,
            postbacks=count,
        )


def first_in_a_minute(scripts: Scripts, key: str, accounts: Iterable[str]) -> list[str]:
    """Return the accounts of which no tick of any worker has logged a line within the minute.

    Args:
        scripts: the scripts of the broker.
        key: prefix of the keys that say so.
        accounts: names.
    """
    names = list(dict.fromkeys(accounts))
    if not names:
        return []
    with broker_errors():
        pipe = scripts.client.pipeline(transaction=False)
        for name in names:
            pipe.set(key + name, 1, nx=True, ex=LOGGED_EVERY_S)
        answers = pipe.execute(raise_on_error=False)
    # An error counts as a yes: a full broker notes no minute, and a line too many does no harm.
    return [name for name, is_first in zip(names, answers, strict=True) if is_first is not None]
