"""Systems that ``postbacks list`` shows: what the broker alone has, and a history."""

from __future__ import annotations

import json
import time

import pytest
from history.records import make_record
from listing import HOUR_MS, RECORDS, URL, Recorded

from postbacks import keys
from postbacks.cli import follow


@pytest.fixture
def ended(rig):
    """Five postbacks that have ended, the first two of them dead: at 1, 2, … s of the hour before this one."""
    hour_ms = int(time.time()) // 3600 * 3_600_000 - 3_600_000
    rows = [
        ("a-refused", "dead", "acme", "refused"),
        ("b-status", "dead", "beta", "status"),
        ("a-delivered", "delivered", "acme", ""),
        ("b-skipped", "skipped", "beta", "origin_off"),
        ("a-cancelled", "cancelled", "acme", "revoked"),
    ]
    for number, (postback_id, state, account, reason) in enumerate(rows, start=1):
        ended_ms = hour_ms + number * 1000
        fields = {"state": state, "account": account, "group": "mo", "origin": "SMS_MO", "code": "N211", "url": URL,
                  "reason": reason, "created_ms": ended_ms - 500, "ended_ms": ended_ms}  # fmt: skip
        if state in {"dead", "delivered"}:
            note = {"number": 1, "at_ms": ended_ms - 100, "outcome": reason or "delivered", "elapsed_ms": 90}
            note |= {"refused": {"detail": "connection refused"}}.get(
                reason, {"status": 500 if reason else 200}
            )
            fields |= {"attempts": 1, "attempt:1": json.dumps(note)}
        rig.client.hset(keys.record(postback_id), mapping=fields)
        rig.client.zadd(keys.DEAD if state == "dead" else keys.DONE, {postback_id: ended_ms})
    return hour_ms


@pytest.fixture
def recorded(tmp_path, rig):
    """A history with ``RECORDS``, accepted a second after each other; the broker has what is not at its end."""
    history = Recorded(tmp_path, rig.client)
    accepted = [
        {"accepted_ms": HOUR_MS + number * 1000, **fields} for number, fields in enumerate(RECORDS.values())
    ]
    rows = dict(zip(RECORDS, accepted, strict=True))
    history.record(*(make_record(postback_id, **fields) for postback_id, fields in rows.items()))
    for postback_id in ("waiting", "parked"):
        history.hold(postback_id, **rows[postback_id])
    return history


@pytest.fixture
def polls(monkeypatch):
    """Do one step before each poll, and press Ctrl-C after the last one."""

    def start(*steps):
        left = iter(steps)

        def step(_):
            try:
                next(left)()
            except StopIteration:
                raise KeyboardInterrupt from None

        monkeypatch.setattr(follow, "sleep", step)

    return start
