"""What ``accept.lua`` made of postbacks, for the log: ids that were taken, accounts that nobody knows, full backlogs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.accounts import NO_URL, UNKNOWN_ACCOUNT
from postbacks.broker import broker_errors
from postbacks.ledger.digest import fresh_id, is_same
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.states import ACCEPTED, BACKLOG_FULL, DEAD, ID_TAKEN, KNOWN
from postbacks.logs import EventLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postbacks.queue.scripts import Argument, Scripts

log = EventLog(__name__)

#: Fields of a postback in the arguments of ``accept.lua``, and where some of them stand.
FIELDS: Final = 14
_ID, _ACCOUNT, _PLACE, _REASON, _DIGEST = 0, 1, 8, 9, 12
#: Seconds between two lines of the log about one account that nobody knows.
UNROUTED_EVERY_S: Final = 60


def set_apart(scripts: Scripts, fields: list[Argument], results: list[int]) -> None:
    """Say which postbacks are kept as dead because their id is another postback's.

    A digest may differ though the postback is the same: a record of version 0.1.0 has none. So the documents are
    compared before anything is said; what is the same is dropped again, as it is known already.

    Args:
        scripts: the scripts of the broker.
        fields: the arguments of ``accept.lua``; what was set apart gets the id that it is kept under.
        results: its results; what turns out to be the same becomes ``KNOWN``.
    """
    if ID_TAKEN not in results:
        return
    ledger = Ledger(scripts.client)
    for number, result in enumerate(results):
        if result != ID_TAKEN:
            continue
        at = number * FIELDS
        taken_id, account, digest = str(fields[at + _ID]), fields[at + _ACCOUNT], fields[at + _DIGEST]
        kept_id = fields[at + _ID] = fresh_id(taken_id, bytes(digest))  # type: ignore[arg-type]
        first, kept = ledger.find(taken_id), ledger.find(kept_id)
        if first is not None and kept is not None and is_same(first, kept):
            scripts.retract(kept_id)
            results[number] = KNOWN
            continue
        log.error(
            "intake.id_taken",
            "another postback has this id; this one is kept as dead under a new one",
            account=str(account) or None,
            id=kept_id,
            taken_id=taken_id,
        )


def report(scripts: Scripts, fields: list[Argument], results: list[int]) -> None:
    """Log which accounts have a full backlog, and which are not known or have no URL for what came."""
    if BACKLOG_FULL not in results and DEAD not in fields[_PLACE::FIELDS]:
        return  # nearly always
    full: dict[str, int] = {}
    unrouted: dict[tuple[str, str], int] = {}
    for result, account, place, reason in _rows(fields, results):
        if result == BACKLOG_FULL:
            full[account] = full.get(account, 0) + 1
        elif result == ACCEPTED and place == DEAD and reason in {UNKNOWN_ACCOUNT, NO_URL}:
            unrouted[account, reason] = unrouted.get((account, reason), 0) + 1
    if full:
        log.error(
            "intake.backlog_full",
            "the backlog is full; they are dead",
            account=",".join(sorted(full)),
            postbacks=sum(full.values()),
        )
    for account, reason in _to_be_logged(scripts, list(unrouted)):
        log.warning(
            "intake.unrouted",
            "set the account, then `postbacks resend` sends them; nothing more is logged of it for a minute",
            account=account,
            reason=reason,
            postbacks=unrouted[account, reason],
        )


def _rows(fields: list[Argument], results: list[int]) -> Iterator[tuple[int, str, str, str]]:
    for number, result in enumerate(results):
        at = number * FIELDS
        yield result, str(fields[at + _ACCOUNT]), str(fields[at + _PLACE]), str(fields[at + _REASON])


def _to_be_logged(scripts: Scripts, unrouted: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those of which no tick of any worker has logged a line within the minute."""
    if not unrouted:
        return []
    with broker_errors():
        pipe = scripts.client.pipeline(transaction=False)
        for account, _ in unrouted:
            pipe.set(keys.UNROUTED_LOGGED + account, 1, nx=True, ex=UNROUTED_EVERY_S)
        answers = pipe.execute(raise_on_error=False)
    # An error is as good as a yes: a full broker notes no minute, and what it says is of no matter here.
    return [row for row, first in zip(unrouted, answers, strict=True) if first is not None]
