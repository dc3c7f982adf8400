"""Pauses of accounts: who is paused since when, until when and why, and what waits meanwhile.

The scripts that begin POSTs read the first line of the account's row (``routes.py``), so that a pause costs a claim no
command of its own. What people are told of it stands beside: when it ends, and in words why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker import memory
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.ledger import search
from postbacks.ledger.record import iso
from postbacks.queue.shares import shares_of

if TYPE_CHECKING:
    import redis

    from postbacks.settings import Settings

#: Share of an account's backlog limit from which on a paused account is one to be told of.
NEARLY_FULL: Final = 0.5


class Pause(NamedTuple):
    """Pause of an account.

    Attributes:
        account: the account's name.
        since_ms: since when it is paused, by the broker's clock.
        until_ms: when the pause ends by itself; None where somebody ends it.
        reason: in words of who paused it; may be empty.
        by: who paused it.
        waiting: postbacks in its lanes.
        oldest_ms: when the longest waiting of them was accepted; None where none waits.
    """

    account: str
    since_ms: int
    until_ms: int | None
    reason: str
    by: str
    waiting: int = 0
    oldest_ms: int | None = None

    def to_public_dict(self) -> dict[str, Any]:
        """Return the pause as JSON shows it."""
        return {
            "since": iso(self.since_ms),
            "until": iso(self.until_ms),
            "reason": self.reason or None,
            "by": self.by or None,
            "waiting": self.waiting,
            "oldest": iso(self.oldest_ms),
        }


class PausedBacklog(NamedTuple):
    """Backlog of a paused account that comes near its limit, past which new events of the group are dead.

    Attributes:
        pause: of the account.
        group: the fullest of its groups.
        units: what the group has open, in units of the limit (``queue/shares.py``).
        limit: units that it may have open.
    """

    pause: Pause
    group: str
    units: int
    limit: int


def details(reason: str, by: str) -> str:
    """Write what a pause says in words, as ``pause.lua`` stores it."""
    return json.dumps({"reason": reason, "by": by}, ensure_ascii=False)


def parse(account: str, stored: bytes) -> Pause:
    """Read a pause as it is stored, without what waits; of one that was lost, of which the row alone is left, as little."""
    since_ms, until_ms, words = text(stored or b"0 - {}").split(" ", 2)
    said = json.loads(words)
    return Pause(
        account,
        int(since_ms),
        None if until_ms == "-" else int(until_ms),
        said.get("reason", ""),
        said.get("by", ""),
    )


def read(client: redis.Redis, accounts: Sequence[str] | None = None) -> dict[str, Pause]:
    """Read the pauses in force, and what waits meanwhile.

    Args:
        client: the broker's.
        accounts: of these alone; None for all that are paused.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    broker: Any = client
    with broker_errors():
        if accounts is None:
            accounts = [name.decode() for name in broker.zrange(keys.PAUSED, 0, -1)]
        pauses: dict[str, Pause] = {}
        for page in search.pages(accounts):
            pauses |= _read_page(broker, page)
    return pauses


def _read_page(broker: Any, accounts: Sequence[str]) -> dict[str, Pause]:
    stored = broker.hmget(keys.PAUSES, accounts)
    pauses = {account: parse(account, row) for account, row in zip(accounts, stored, strict=True) if row}
    pipe = broker.pipeline(transaction=True)
    for account in pauses:
        for group in keys.GROUPS:
            lane = keys.lane(keys.lane_name(account, group))
            pipe.llen(lane)
            pipe.lindex(lane, 0)
    replies = pipe.execute() if pauses else []
    heads = [head.decode() for head in replies[1::2] if head is not None]
    for head in heads:
        pipe.hget(keys.record(head), "created_ms")
    created_ms = dict(zip(heads, pipe.execute() if heads else [], strict=True))
    width = 2 * len(keys.GROUPS)
    for at, (account, pause) in enumerate(list(pauses.items())):
        lanes = replies[at * width : (at + 1) * width]
        times = [int(float(created_ms.get(head.decode()) or 0)) for head in lanes[1::2] if head is not None]
        oldest_ms = min((time for time in times if time), default=None)
        pauses[account] = pause._replace(waiting=sum(lanes[::2]), oldest_ms=oldest_ms)
    return pauses


def nearly_full(client: redis.Redis, settings: Settings) -> list[PausedBacklog]:
    """Find the paused accounts of which a group has half of its backlog limit open, the fullest first.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    pauses = read(client)
    if not pauses:
        return []
    limit = shares_of(memory.recent(client).limit, settings).units
    lanes = [(pause, group) for pause in pauses.values() for group in keys.GROUPS]
    with broker_errors():
        names = [keys.lane_name(pause.account, group) for pause, group in lanes]
        open_units: list[bytes | None] = client.hmget(keys.OPEN, names)  # type: ignore[assignment]
    fullest: dict[str, PausedBacklog] = {}
    for (pause, group), value in zip(lanes, open_units, strict=True):
        backlog = PausedBacklog(pause, group, int(value or 0), limit)
        if backlog.units >= max(fullest.get(pause.account, backlog).units, limit * NEARLY_FULL):
            fullest[pause.account] = backlog
    return sorted(fullest.values(), key=lambda backlog: -backlog.units)
