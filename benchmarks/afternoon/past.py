"""Past of the afternoon, written by the recorder's own writer: what happened before the stage was lit, journal included."""

from __future__ import annotations

import random
import uuid
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare
from postbacks.history.writer import Writer
from postbacks.ledger.journal import Entry
from postbacks.ledger.record import SCHEMA, Attempt
from postbacks.urls import endpoint_of

if TYPE_CHECKING:
    from benchmarks.afternoon.cast import Account, Events

HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000
#: Hours that are staged, and the hour of the day that it is at their end: half past three.
HOURS: Final = 30
_NOW_H: Final = 15.5
#: Messages of each hour of the day, in parts.
_DAY: Final = (2, 1, 1, 1, 1, 2, 5, 12, 25, 40, 52, 58, 60, 58, 55, 54, 52, 48, 40, 32, 24, 16, 9, 4)
#: Messages and changes; most of them are two postbacks.
MESSAGES: Final = 19_000
#: Between two POSTs, and POSTs at most.
COUNTDOWN_MS: Final = 300_000
POSTS_MAX: Final = 6
_BATCH: Final = 2000


class Outage(NamedTuple):
    """Time in which every POST of an account failed, in hours before now; None for its end where it lasts."""

    account: str
    begin_h: float
    end_h: float | None
    outcome: str
    status: int | None
    elapsed_ms: int
    detail: str
    excerpt: str = ""


def write(url: str, events: Events, port: int, outages: list[Outage], now_ms: int) -> int:
    """Write all of it into an empty database; return how many postbacks it has."""
    engine = connect(url)
    prepare(engine)
    writer = Writer(engine)
    writer.take_lease()
    count, batch = 0, []
    for record in _records(events, port, outages, now_ms):
        batch.append(record)
        if len(batch) == _BATCH:
            count += writer.write(batch)
            batch = []
    count += writer.write(batch, recorded_ms=now_ms)
    writer.copy_journal(
        [Entry(uuid.uuid4().hex, now_ms - int(back_h * HOUR_MS), *rest) for back_h, *rest in _JOURNAL]
    )
    engine.dispose()
    return count


def _records(
    events: Events, port: int, outages: list[Outage], now_ms: int
) -> Iterator[tuple[str, dict[bytes, bytes]]]:
    by_account: dict[str, list[Outage]] = {}
    for outage in outages:
        by_account.setdefault(outage.account, []).append(outage)
    for at_ms in sorted(_times(events.random, now_ms)):
        account = events.account()
        for event_ms, event in events.of(account, at_ms):
            of_account = by_account.get(account.name, [])
            # What has come since a failure that lasts is sent on the stage.
            is_staged = any(
                outage.end_h is None and event_ms >= now_ms - outage.begin_h * HOUR_MS
                for outage in of_account
            )
            if event_ms < now_ms - 5000 and not is_staged:
                yield _record(account, port, event, event_ms, of_account, now_ms, events.random)


def _times(choice: random.Random, now_ms: int) -> Iterator[int]:
    """Yield times of the staged hours, as many in each as the hour of the day has."""
    hours = [(_NOW_H - back) % 24 for back in range(HOURS)]
    weights = list(accumulate(_DAY[int(hour)] for hour in hours))
    for _ in range(MESSAGES):
        back = bisect(weights, choice.random() * weights[-1])
        yield now_ms - int((back + choice.random()) * HOUR_MS)


def _record(
    account: Account,
    port: int,
    event: dict[str, str],
    accepted_ms: int,
    outages: list[Outage],
    now_ms: int,
    choice: random.Random,
) -> tuple[str, dict[bytes, bytes]]:
    parsed = parse_event(event)
    attempts: list[Attempt] = []
    at_ms = accepted_ms + choice.randrange(150, 1100)
    hiccup = choice.random() < 0.008
    while len(attempts) < POSTS_MAX:
        outage = next(
            (
                outage
                for outage in outages
                if outage.begin_h * HOUR_MS >= now_ms - at_ms > (outage.end_h or 0) * HOUR_MS
            ),
            None,
        )
        number = len(attempts) + 1
        if outage is not None:
            elapsed_ms = max(3, int(outage.elapsed_ms * choice.uniform(0.9, 1.1)))
            attempts.append(
                Attempt(
                    number, at_ms, outage.outcome, outage.status, elapsed_ms, outage.detail, outage.excerpt
                )
            )
        elif hiccup and number == 1 and at_ms < now_ms - 2 * COUNTDOWN_MS:
            attempts.append(Attempt(number, at_ms, *_HICCUPS[choice.randrange(len(_HICCUPS))]))
        else:
            elapsed_ms = int(account.wait_ms * choice.lognormvariate(0, 0.45))
            attempts.append(Attempt(number, at_ms, "delivered", 200, elapsed_ms))
            break
        at_ms += attempts[-1].elapsed_ms + COUNTDOWN_MS
    last = attempts[-1]
    is_delivered = last.outcome == "delivered"
    return record_of(
        account.url(port),
        account.name,
        event,
        render(parsed),
        accepted_ms,
        state="delivered" if is_delivered else "dead",
        group=parsed.group,
        attempts=attempts,
        ended_ms=last.at_ms + last.elapsed_ms + 4,
        reason="" if is_delivered else last.outcome,
        postback_id=str(uuid.UUID(int=choice.getrandbits(128), version=4)),
    )


#: Attempts that fail once: outcome, status, ms, detail, answer.
_HICCUPS: Final = (
    (
        "status",
        502,
        61,
        "answered 502; only 200 counts",
        "<html><head><title>502 Bad Gateway</title></head></html>",
    ),
    ("status", 500, 240, "answered 500; only 200 counts", '{"error": "deadlock detected, try again"}'),
    ("answer_timeout", None, 10_004, "no whole header of an answer within 10 s"),
    ("refused", None, 2, "connection refused"),
)


def record_of(
    url: str,
    account: str,
    event: dict[str, str],
    document: bytes,
    accepted_ms: int,
    *,
    state: str,
    group: str,
    attempts: list[Attempt],
    ended_ms: int,
    reason: str,
    postback_id: str,
) -> tuple[str, dict[bytes, bytes]]:
    """Return a record as the broker has it: its id and its hash."""
    fields: dict[str, Any] = {
        "schema": SCHEMA, "state": state, "account": account, "group": group, "origin": event["ORIGIN"],
        "code": event["CODE"], "url": url, "endpoint": endpoint_of(url), "xml": document, "created_ms": accepted_ms,
        "sequence": accepted_ms, "attempts": len(attempts), "failures": sum(a.outcome != "delivered" for a in attempts),
        "bytes": 1500, "digest": b"\0" * 20, "own": 0, "ended_ms": ended_ms, "reason": reason,
        "sent_ms": attempts[-1].at_ms,
    }  # fmt: skip
    fields |= {f"attempt:{attempt.number}": attempt.to_json() for attempt in attempts}
    return postback_id, {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in fields.items()
    }


#: Entries of the journal: hours before now, who, what, to what, why, details.
_JOURNAL: Final = (
    (28.4, "maria", "account.set", "blue-heron-dental", "their new gateway, ticket 4098", {"changed": {"url": [
        "https://old-gateway.blue-heron-dental.example/in", "https://api.blue-heron-dental.example/postbacks",
    ]}}),
    (27.2, "priya", "account.set", "kestrel-motors", "onboarding, ticket 4102", {"new": True, "changed": {"rate": [None, "20/s"]}}),
    (26.8, "priya", "secret.rotate", "kestrel-motors", "onboarding, ticket 4102", {"overlap_s": 86400}),
    (25.1, "maria", "account.set", "summit-outfitters", "they asked for more time", {"changed": {"answer_timeout_s": [None, 20.0]}}),
    (22.4, "tom", "reveal", "TX0004471", "customer asks for a proof, ticket 4117", {"account": "evergreen-pharmacy"}),
    (19.7, "tom", "account.pause", "evergreen-pharmacy", "they move their servers", {"until": "2026-11-27T21:00:00Z"}),
    (18.2, "tom", "account.resume", "evergreen-pharmacy", "they are back", {"waiting": 318}),
    (6.3, "maria", "account.set", "harborview-hotels", "ticket 4126", {"changed": {"rate": ["20/s", "50/s"]}}),
    (5.6, "deploy-bot", "secret.reseal", "", "yearly rotation", {"accounts": 200}),
    (3.1, "priya", "secret.rotate", "copperline-bank", "their request", {"overlap_s": 172800}),
    (2.2, "tom", "reveal", "TX0011920", "ticket 4131", {"account": "harborview-hotels"}),
    (1.4, "maria", "incident.mute", "1", "their on-call is on it", {"subject": "every attempt at old-mill-bakery fails"}),
)  # fmt: skip
