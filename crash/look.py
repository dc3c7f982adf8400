"""Reading what the broker holds, and whether anything is still on its way.

Clients are redis-py's; its types say "text, bytes or awaitable" of every reply, so here they are ``Any``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, Final

from crash.ledger import Entry, Held
from postbacks import keys
from postbacks.ledger.record import Record

_GROUPS: Final = ("general", "mo", "mt", "pass")
#: Records read by one pipeline.
_BATCH: Final = 500


def on_the_way(client: Any) -> dict[str, int]:
    """What is neither delivered nor dead, by place; empty when all is drained."""
    accounts = [name.decode() for name in client.hkeys(keys.SEQUENCE)]
    pipe = client.pipeline(transaction=False)
    for name in keys.QUEUE_LISTS:
        pipe.llen(name)
    pipe.llen(keys.INTAKE)
    pipe.zcard(keys.PARKED)
    pipe.zcard(keys.CLAIMERS)
    pipe.zcard(keys.QUARANTINE)
    for account in accounts:
        for group in _GROUPS:
            pipe.llen(keys.lane(keys.lane_name(account, group)))
    *queues, intake, parked, claimers, quarantined = (counts := pipe.execute())[: len(keys.QUEUE_LISTS) + 4]
    waiting = sum(counts[len(keys.QUEUE_LISTS) + 4 :])
    found = {
        "queue": sum(queues),
        "intake": intake,
        "parked": parked,
        "claimers": claimers,
        "quarantined": quarantined,
        "waiting": waiting,
    }
    return {place: count for place, count in found.items() if count}


def look(client: Any) -> Held:
    """Read everything. Nothing else may be running."""
    entries, total_bytes = _entries(client)
    places: defaultdict[str, list[str]] = defaultdict(list)
    for place, lists in (("queue", keys.QUEUE_LISTS), ("intake", (keys.INTAKE,))):
        for name in lists:
            for message in client.lrange(name, 0, -1):
                places[json.loads(message)["headers"]["id"]].append(place)
    for key in client.scan_iter(f"{keys.LANE}*", 1000):
        for one in client.lrange(key, 0, -1):
            places[one.decode()].append("waiting")
    leaks: dict[str, int] = {}
    for key in client.scan_iter(f"{keys.CLAIMS}*", 1000):
        for one in client.hkeys(key):
            places[one.decode()].append("sending")
    indexes = {keys.QUARANTINE: "waiting", keys.PARKED: "parked", keys.DONE: "done", keys.DEAD: "dead"}
    for key, place in indexes.items():
        for one in client.zrange(key, 0, -1):
            places[one.decode()].append(place)
    if not on_the_way(client):
        leaks = _leaks(client, total_bytes)
    return Held(entries, dict(places), leaks)


def _entries(client: Any) -> tuple[dict[str, Entry], int]:
    ids = [key.decode().removeprefix(keys.RECORD) for key in client.scan_iter(f"{keys.RECORD}*", 1000)]
    entries: dict[str, Entry] = {}
    total_bytes = 0
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        pipe = client.pipeline(transaction=False)
        for one in batch:
            pipe.hgetall(keys.record(one))
        hashes: list[dict[bytes, bytes]] = pipe.execute()
        for one, fields in zip(batch, hashes, strict=True):
            record = Record.from_hash(one, fields)
            outcomes = {attempt.number: attempt.outcome for attempt in record.attempts}
            entries[one] = Entry(
                record.state, outcomes, record.reason, record.account, (record.ended_ms or 0) / 1000,
                {attempt.number: attempt.at_ms / 1000 for attempt in record.attempts},
                fields.get(b"own", b"").decode(),
            )  # fmt: skip
            total_bytes += int(fields.get(b"bytes", 0))
    return entries, total_bytes


def _leaks(client: Any, total_bytes: int) -> dict[str, int]:
    """Counters that should be zero when everything has ended."""
    found: dict[str, int] = {}
    for key in client.scan_iter(f"{keys.LANE_STATE}*", 1000):
        claimed: Any = client.hget(key, "claimed")
        if int(claimed or 0):
            found[f"{key.decode()} claimed"] = int(claimed)
    for account, count in client.hgetall(keys.BACKLOG).items():
        found[f"backlog of {account.decode()}"] = int(count)
    found["ledger-bytes"] = int(client.get(keys.LEDGER_BYTES) or 0) - total_bytes
    return {name: value for name, value in found.items() if value}
