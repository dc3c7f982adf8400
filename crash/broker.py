"""Readings of the broker: whether anything is still on its way, and all that it holds.

What stands where is what ``postbacks doctor`` reads: its audit, and its script that locates a postback.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, Final

from crash.comparison import Entry, Held
from postbacks import keys
from postbacks.doctor import audit
from postbacks.doctor.scripts import locate
from postbacks.ledger.record import Record
from postbacks.monitor import snapshot
from postbacks.queue.scripts import Scripts
from postbacks.settings import load

#: Records read by one pipeline.
_BATCH: Final = 500
#: Seconds that the audit may take.
_AUDIT_S: Final = 120.0
#: State of a postback that stands where it must, by the first word of a place as doctor names it.
_STATE_OF_PLACE: Final = {"lane": "waiting", "claims": "sending", "quarantine": "waiting"}


def on_the_way(client: Any) -> dict[str, int]:
    """Count what is neither delivered nor dead, by place; empty when all is drained.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    now = snapshot.read(client, load(), memory=False)
    counts = {
        "queue": now.queued,
        "intake": now.intake,
        "parked": now.parked,
        "claimers": len(now.leases),
        "quarantined": now.quarantined,
        "waiting": now.open_waiting + now.still_waiting,
    }
    return {place: count for place, count in counts.items() if count}


def read_held(client: Any) -> Held:
    """Read everything. Nothing else may be running."""
    scripts = Scripts(client)
    entries, record_bytes = _entries(client)
    audited = audit.recheck(scripts, audit.run(scripts, _AUDIT_S))
    places: defaultdict[str, list[str]] = defaultdict(list)
    for place, lists in (("queue", keys.QUEUE_LISTS), ("intake", (keys.INTAKE,))):
        for name in lists:
            for message in client.lrange(name, 0, -1):
                places[json.loads(message)["headers"]["id"]].append(place)
    lanes_of = dict.fromkeys(entries, ()) | audited.lanes_of
    for placement in locate(scripts, lanes_of, audit.tokens_of_claims(client)):
        for place in placement.places:
            kind = place.partition(" ")[0]
            places[placement.id].append(_STATE_OF_PLACE.get(kind, kind))
    return Held(entries, dict(places), _leaks(client, audited, record_bytes))


def _entries(client: Any) -> tuple[dict[str, Entry], int]:
    """Return the ledger's records by id, and the bytes that they count."""
    ids = [key.decode().removeprefix(keys.RECORD) for key in client.scan_iter(f"{keys.RECORD}*", 1000)]
    entries: dict[str, Entry] = {}
    record_bytes = 0
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        pipe = client.pipeline(transaction=False)
        for postback_id in batch:
            pipe.hgetall(keys.record(postback_id))
        for postback_id, fields in zip(batch, pipe.execute(), strict=True):
            record = Record.from_hash(postback_id, fields)
            outcomes = {attempt.number: attempt.outcome for attempt in record.attempts}
            entries[postback_id] = Entry(
                record.state, outcomes, record.reason, record.account, (record.ended_ms or 0) / 1000,
                {attempt.number: attempt.at_ms / 1000 for attempt in record.attempts},
                fields.get(b"own", b"").decode(),
            )  # fmt: skip
            record_bytes += int(fields.get(b"bytes", 0))
    return entries, record_bytes


def _leaks(client: Any, audited: audit.Audit, record_bytes: int) -> dict[str, int | str]:
    """Return counters that are not what is counted, and how far they are off."""
    leaks: dict[str, int | str] = {
        f"{check} of {subject}": words
        for check in (audit.PACE, audit.BACKLOG, audit.ENDPOINTS)
        for subject, words in audited.faults[check].items()
    }
    if not audited.complete:
        leaks["audit"] = audited.progress
    if bytes_off := int(client.get(keys.LEDGER_BYTES) or 0) - record_bytes:
        leaks["ledger-bytes"] = bytes_off
    return leaks
