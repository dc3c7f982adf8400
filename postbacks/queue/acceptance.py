"""What ``accept.lua`` made of postbacks, for the log: ids that were taken, accounts that nobody knows, full backlogs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from postbacks import keys
from postbacks.accounts import NO_URL, UNKNOWN_ACCOUNT
from postbacks.broker.client import broker_errors
from postbacks.ledger.digest import fresh_id, is_same
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.states import ACCEPTED, BACKLOG_FULL, DEAD, ID_TAKEN, KNOWN, STUB
from postbacks.logs import EventLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postbacks.queue.scripts import Argument, Scripts

log = EventLog(__name__)

#: Fields of a postback in the arguments of ``accept.lua``, and where some of them stand.
FIELDS: Final = 14
_ID, _ACCOUNT, _PLACE, _REASON, _DIGEST = 0, 1, 8, 9, 12
#: Seconds between two lines of the log that say the same of one account.
LOGGED_EVERY_S: Final = 60


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
    if BACKLOG_FULL not in results and STUB not in results and DEAD not in fields[_PLACE::FIELDS]:
        return  # nearly always
    full: Counter[str] = Counter()
    stubs: Counter[str] = Counter()
    unrouted: Counter[tuple[str, str]] = Counter()
    for result, account, place, reason in _rows(fields, results):
        if result == BACKLOG_FULL:
            full[account] += 1
        elif result == STUB:
            stubs[account] += 1
        elif result == ACCEPTED and place == DEAD and reason in {UNKNOWN_ACCOUNT, NO_URL}:
            unrouted[account, reason] += 1
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


def _rows(fields: list[Argument], results: list[int]) -> Iterator[tuple[int, str, str, str]]:
    for number, result in enumerate(results):
        at = number * FIELDS
        yield result, str(fields[at + _ACCOUNT]), str(fields[at + _PLACE]), str(fields[at + _REASON])


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
    # An error is as good as a yes: a full broker notes no minute, and what it says is of no matter here.
    return [name for name, is_first in zip(names, answers, strict=True) if is_first is not None]
