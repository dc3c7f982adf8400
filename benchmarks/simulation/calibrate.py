"""Measure on a real broker what docs/benchmarks.json does not hold: the small costs that a simulation needs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from benchmarks import fill
from benchmarks.machine import exact_cpu_s
from benchmarks.simulation.costs import Costs
from postbacks import accounts, keys
from postbacks.delivery.claims import Held
from postbacks.delivery.loop import CLAIM_BATCH
from postbacks.devtools.local import EmbeddedBroker
from postbacks.ledger.record import OVERHEAD_BYTES, Attempt
from postbacks.queue.intake import Intake
from postbacks.queue.scripts import Scripts
from postbacks.settings import load
from postbacks.tasks import decide
from postbacks.transport.outcomes import Outcome

#: Of each move. Enough for the nanoseconds of schedstat, little enough for five seconds in all.
COUNT: Final = 2_000
CALLS: Final = 300
ROUNDS: Final = 3
#: Of what is parked, so that no claim releases it before it is measured; and what the clock is moved on by then.
COUNTDOWN_MS: Final = 60_000
PAST_IT_MS: Final = COUNTDOWN_MS + 2_000
#: Callers at the same moment.
CROWD: Final = 50
_ELSEWHERE: Final = keys.QUEUE + ":calibrate"


def measure(broker: EmbeddedBroker, send_s: float, say: Callable[[str], None] = lambda _: None) -> Costs:
    """Measure every cost but the worker's of a POST, on a broker that is empty and idle.

    Args:
        broker: with accounts ``a0..a99`` set and nothing in its lanes; it is as empty afterwards.
        send_s: the worker's for a POST, which only a run of a worker tells.
        say: told what was found.
    """
    rounds = [_round(broker) for _ in range(ROUNDS)]
    least = {name: min(one[name] for one in rounds) for name in rounds[0]}
    say(", ".join(f"{name} {value * 1e6:.0f} µs" for name, value in least.items() if name.endswith("_s")))
    return Costs(send_s=send_s, **least)


def _round(broker: EmbeddedBroker) -> dict[str, float]:
    client = broker.client(timeout_s=30)
    scripts = Scripts(client)
    found: dict[str, float] = {}
    names = [f"a{number}" for number in range(100)]

    def timed(moves: Callable[[], Any]) -> tuple[float, float, float]:
        broker_s, own_s, began_s = exact_cpu_s(broker.pid), time.process_time(), time.monotonic()
        moves()
        elapsed_s = time.monotonic() - began_s
        return exact_cpu_s(broker.pid) - broker_s, time.process_time() - own_s, elapsed_s

    messages = fill.Messages(client)
    many_s, *_ = timed(lambda: messages.push(range(COUNT), lambda number: names[number % 100]))
    found["publish_many_s"] = many_s / COUNT
    found["message_bytes"] = int(client.memory_usage(keys.QUEUE, samples=0) or 0) / COUNT
    found["record_bytes"] = OVERHEAD_BYTES + len(fill.document(0))
    one: Any = client.lindex(keys.QUEUE, 0)
    pushing_s, _, pushed_s = timed(lambda: [client.lpush(_ELSEWHERE, one) for _ in range(CALLS)])
    _, _, asked_s = timed(lambda: [client.get("calibrate") for _ in range(CALLS)])
    crowd: list[Any] = [client.connection_pool.make_connection() for _ in range(CROWD)]
    _together(crowd, one)
    crowding_s, *_ = timed(lambda: [_together(crowd, one) for _ in range(CALLS // 10)])
    for connection in crowd:
        connection.disconnect()
    client.delete(_ELSEWHERE)
    found["publish_s"] = crowding_s / (CALLS // 10 * CROWD)
    found["turn_s"] = max(0.0, pushing_s / CALLS - found["publish_s"])
    found["network_s"] = asked_s / CALLS
    found["sync_s"] = max(0.0, (pushed_s - asked_s) / CALLS)
    intake = Intake(scripts, accounts.store(), load())
    taken_s, ticked_s, _ = timed(lambda: intake.run(uuid.uuid4().hex, time.monotonic() + 60))
    found["take_in_s"], found["tick_s"] = taken_s / COUNT, ticked_s / COUNT
    _warm(scripts, [f"{name}/mt" for name in names])
    # half of them are delivered, half fail and are parked, come back, are held and share a time-out
    token = uuid.uuid4().hex

    def empty() -> None:
        for _ in range(CALLS):
            scripts.claim(
                token,
                30_000,
                at_most=0,
                suspects_max=0,
                free=2000,
                held_max=0,
                held_per_lane=1,
                slow_lanes=(),
            )

    call_s, asking_s, _ = timed(empty)
    found["call_s"], found["asking_s"] = call_s / CALLS, asking_s / CALLS
    batches = 2 * call_s / CALLS / CLAIM_BATCH
    half = COUNT // 2
    claiming_s, *_ = timed(lambda: _send(scripts, token, half, ("delivered", 0, "ok", "")))
    found["claim_s"] = claiming_s / half - batches
    parking_s, *_ = timed(lambda: _send(scripts, token, half, ("parked", COUNTDOWN_MS, "failed", "status")))
    found["park_s"] = parking_s / half - batches
    scripts.clock_offset_ms += PAST_IT_MS
    releasing_s, *_ = timed(lambda: scripts.release(COUNT))
    found["release_s"] = releasing_s / half
    sharing_s, *_ = timed(lambda: _share(scripts, token, [f"{name}/mt" for name in names]))
    found["share_s"] = sharing_s / half
    held = Held("id", "a0/mt", "http://127.1.0.1:80", 0, 0, "a0", "SMS_MT", "N202", 0)
    outcome = Outcome("status", 500, 0.1)
    _, deciding_s, _ = timed(lambda: [decide(held, outcome) for _ in range(CALLS)])
    found["decide_s"] = deciding_s / CALLS
    scripts.clock_offset_ms += PAST_IT_MS
    scripts.release(COUNT)
    _send(scripts, token, half, ("delivered", 0, "ok", ""))
    scripts.give_back(token)
    assert client.zcard(keys.PARKED) == 0
    for key in (keys.READY_TRUSTED, keys.READY_SUSPECT, *(keys.LANE_STATE + f"{name}/mt" for name in names)):
        client.delete(key)
    return found


def _together(crowd: list[Any], message: Any) -> list[Any]:
    """Callers that put a message each at the same moment; returns what they were answered."""
    for connection in crowd:
        connection.send_command("LPUSH", _ELSEWHERE, message)
    return [connection.read_response() for connection in crowd]


def _warm(scripts: Scripts, lanes: list[str], *, failing: int = 0) -> None:
    for lane in lanes:
        pace: dict[Any, Any] = {"limit": 10, "suspect": failing, "failing": failing, "claimed": 0}
        scripts.client.hset(keys.LANE_STATE + lane, mapping=pace)
    scripts.client.delete(keys.READY_SUSPECT, keys.READY_TRUSTED)
    ring = keys.READY_SUSPECT if failing else keys.READY_TRUSTED
    scripts.client.zadd(ring, dict.fromkeys(lanes, 0))


def _send(scripts: Scripts, token: str, count: int, verdict: tuple[str, int, str, str]) -> None:
    name, countdown_ms, mood, reason = verdict
    while count > 0:
        _, begun, *_ = scripts.claim(
            token, 30_000, at_most=min(count, CLAIM_BATCH), suspects_max=1000, free=2000, held_max=0,
            held_per_lane=1, slow_lanes=(),
        )  # fmt: skip
        assert begun
        note = [
            field
            for row in begun
            for field in (row[0], row[1], name, row[3], _attempt(row[3], reason), countdown_ms, mood, reason)
        ]
        scripts.commit(token, 30_000, 10, 86_400, note)
        count -= len(begun)


def _share(scripts: Scripts, token: str, lanes: list[str]) -> None:
    _warm(scripts, lanes, failing=1)
    _, begun, held, _ = scripts.claim(
        token, 30_000, at_most=len(lanes), suspects_max=1000, free=2000, held_max=100_000, held_per_lane=1000,
        slow_lanes=(),
    )  # fmt: skip
    rows = [(row[0], row[1], row[3]) for row in begun] + [(row[0], row[1], int(row[3]) + 1) for row in held]
    for first in range(0, len(rows), 200):
        note = [
            field
            for one, lane, number in rows[first : first + 200]
            for field in (
                one, lane, "parked", number, _attempt(number, "connect_timeout"), COUNTDOWN_MS, "shared", "connect_timeout",
            )
        ]  # fmt: skip
        scripts.commit(token, 30_000, 10, 86_400, note)


def _attempt(number: Any, outcome: str) -> str:
    return Attempt(int(number), 0, outcome or "ok", 200).to_json()
