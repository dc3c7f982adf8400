"""Health of accounts: whether they are sent to, how well that goes, and when what waits will have gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.accounts import find_account, find_accounts, redis_accounts, store
from postbacks.broker.client import client, text
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.catalogue import ORIGINS
from postbacks.errors import HistoryError, UnknownAccount
from postbacks.history.days import DAY_MS
from postbacks.history.engine import reader
from postbacks.history.listing import search
from postbacks.history.pace import delivered_per_s
from postbacks.history.query import Query
from postbacks.history.transactions import reading
from postbacks.ledger.ledger import Ledger
from postbacks.names import check_name
from postbacks.queue import pauses, routes
from postbacks.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import redis

    from postbacks.accounts import Account
    from postbacks.history.days import AccountCounts
    from postbacks.history.statistics import StatRow
    from postbacks.ledger.ledger import OpenPostbacks
    from postbacks.queue.pauses import Pause

#: Failing lanes that are read for all accounts.
FAILING_MAX: Final = 20_000

#: States of an account, from the worst: its row or its settings cannot be used, it is paused, every attempt of a group
#: fails, it wants nothing, its attempts succeed.
UNUSABLE: Final = "unusable"
PAUSED: Final = "paused"
FAILING: Final = "failing"
OFF: Final = "off"
WELL: Final = "well"


class AccountRow(NamedTuple):
    """Account in a list.

    Attributes:
        name: the account's name.
        account: as the store has it; None where an application's own store cannot list.
        state: ``PAUSED``, ``FAILING``, …
        since_ms: since when it is paused or fails; None for neither.
    """

    name: str
    account: Account | None
    state: str
    since_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountHealth:
    """Account with its health.

    Attributes:
        name: the account's name.
        account: as the store has it; None where it does not have it any more.
        state: ``PAUSED``, ``FAILING``, …
        still: why it stands still, in words; empty where it does not.
        pause: its pause; None where it is not paused.
        failing: group -> since when every attempt of it fails.
        backlog: what is neither delivered nor given up.
        per_s: postbacks delivered a second at present; None where the history cannot be asked.
        ends_ms: when the backlog will have gone at this pace, on the broker's clock; None where it has no end in sight.
        now_ms: the broker's clock.
    """

    name: str
    account: Account | None
    state: str
    still: str
    pause: Pause | None
    failing: Mapping[str, int]
    backlog: OpenPostbacks
    per_s: float | None
    ends_ms: int | None
    now_ms: int


def first_try_rate(row: StatRow | AccountCounts) -> float | None:
    """Return the share of what was sent that its first POST delivered; None where nothing was sent."""
    return row.first / row.sent if row.sent else None


def read_account(name: str) -> AccountHealth:
    """Read an account with its health.

    Raises:
        UnknownAccount: the store does not have it, and nothing is known of it for 24 hours.
        AccountsUnavailable: the store failed.
        BrokerError: the broker cannot be used.
    """
    broker: Any = client()
    name = check_name(name)
    account = find_account(name)
    with broker_errors():
        present_ms = now_ms(broker)
        _, row_state = routes.since_and_state(broker.hget(keys.ROUTES, name))
    pause = pauses.read(broker, [name]).get(name)
    failing = _failing_of(broker, [name])[name]
    backlog = Ledger(broker).open_of(name)
    if account is None and not sum(backlog) and not _had_postbacks(name, present_ms):
        raise UnknownAccount(f"There is no account {name!r}, and nothing of it in the last 24 hours.")
    per_s = _per_s(name, present_ms)
    still = routes.STILL_WORDS.get(row_state, "")
    goes_on = per_s and not still and pause is None
    return AccountHealth(
        name=name,
        account=account,
        state=_state(account, is_paused=pause is not None, is_failing=bool(failing), is_still=bool(still)),
        still=still,
        pause=pause,
        failing=failing,
        backlog=backlog,
        per_s=per_s,
        ends_ms=present_ms + round(sum(backlog) / per_s * 1000)
        if per_s and goes_on and sum(backlog)
        else None,
        now_ms=present_ms,
    )


def _had_postbacks(name: str, present_ms: int) -> bool:
    try:
        return bool(search(Query(account=name, since_ms=present_ms - DAY_MS, limit=1)).postbacks)
    except HistoryError:
        return False


def _per_s(name: str, present_ms: int) -> float | None:
    try:
        with reading(reader()) as connection:
            return delivered_per_s(connection, name, present_ms)
    except HistoryError:
        return None


def all_accounts(active: Iterable[str] = ()) -> list[AccountRow]:
    """List the accounts by name.

    Args:
        active: names that are listed of an application's own store, which answers for names alone; those that are paused
            or fail are besides.

    Raises:
        AccountsUnavailable: the store failed.
        BrokerError: the broker cannot be used.
    """
    broker = client()
    paused, failing = pauses.read(broker), _all_failing(broker)
    if load().accounts:
        accounts = dict(find_accounts(store(), sorted({*active, *paused, *failing} - {""})))
        names = sorted({*accounts, *paused})
    else:
        accounts = {account.name: account for account in redis_accounts().all()}
        names = sorted(accounts)
    return _rows(names, accounts, paused, failing)


def named_accounts(names: Sequence[str]) -> list[AccountRow]:
    """List accounts that are named, those among them that the store does not have included.

    Raises:
        AccountsUnavailable: the store failed.
        BrokerError: the broker cannot be used.
    """
    if not names:
        return []
    broker = client()
    lanes = _failing_of(broker, names)
    failing = {name: min(since_ms.values()) for name, since_ms in lanes.items() if since_ms}
    return _rows(names, find_accounts(store(), names), pauses.read(broker, names), failing)


def _rows(
    names: Sequence[str],
    accounts: Mapping[str, Account],
    paused: Mapping[str, Pause],
    failing: Mapping[str, int],
) -> list[AccountRow]:
    return [
        AccountRow(
            name,
            accounts.get(name),
            _state(accounts.get(name), is_paused=name in paused, is_failing=name in failing),
            paused[name].since_ms if name in paused else failing.get(name),
        )
        for name in names
    ]


def _failing_of(broker: Any, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Read account -> group -> since when every attempt of it has failed, of groups that fail."""
    lanes = [(name, group) for name in names for group in keys.GROUPS]
    with broker_errors():
        scores = broker.zmscore(keys.FAILING, [keys.lane_name(*lane) for lane in lanes])
    failing: dict[str, dict[str, int]] = {name: {} for name in names}
    for (name, group), since_ms in zip(lanes, scores, strict=True):
        if since_ms is not None:
            failing[name][group] = int(since_ms)
    return failing


def _all_failing(broker: redis.Redis) -> dict[str, int]:
    """Read account -> since when a lane of it has failed, those first that have failed for the longest."""
    with broker_errors():
        rows: Any = broker.zrange(keys.FAILING, 0, FAILING_MAX - 1, withscores=True)
    failing: dict[str, int] = {}
    for lane, since_ms in rows:
        failing.setdefault(text(lane).rpartition("/")[0], int(since_ms))
    return failing


def _state(account: Account | None, *, is_paused: bool, is_failing: bool, is_still: bool = False) -> str:
    if is_still or (account is not None and account.unreadable):
        return UNUSABLE
    if is_paused:
        return PAUSED
    if is_failing:
        return FAILING
    wants_nothing = account is not None and (not account.urls() or account.off >= set(ORIGINS))
    return OFF if wants_nothing else WELL
