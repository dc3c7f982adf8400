"""Every script at its worst, with 100,000 accounts and a million waiting: how long it holds the broker up."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from benchmarks import fill
from benchmarks.machine import exact_cpu_s
from benchmarks.scenario import Bench, Row, environment
from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.doctor import scripts as doctor_scripts
from postbacks.doctor.records import fields as record_fields
from postbacks.ledger.footprint import OVERHEAD_BYTES
from postbacks.ledger.record import SCHEMA, Attempt
from postbacks.monitor import snapshot
from postbacks.queue.intake import MAX_BATCH
from postbacks.queue.rows import AcceptRow, AttemptRow
from postbacks.queue.scripts import Scripts, claim_call
from postbacks.queue.tick import REAP_BATCH, RETAIN_BATCH, RETIRE_BATCH
from postbacks.settings import load

if TYPE_CHECKING:
    import redis

LIMIT_MS: Final = 50
LARGE = "large/mt"
#: Characters of the largest text: its message is 350 KB.
LARGEST: Final = 250_000
LEASE_MS: Final = 30_000

#: Copies a record that ``accept.lua`` has made, and puts the copies into lanes: a million in some seconds.
#: KEYS[1] the record; ARGV: prefixes of records and lanes, ids begin with, first, last, accounts (0: one), state, their name
_COPY: Final = """
local fields = redis.call('HGETALL', KEYS[1])
for number = tonumber(ARGV[4]), tonumber(ARGV[5]) do
  local id = string.format('%s-0000-4000-8000-%012d', ARGV[3], number)
  local account = tonumber(ARGV[6]) > 0 and ARGV[8] .. number % ARGV[6] or ARGV[8]
  redis.call('DEL', ARGV[1] .. id) -- what a round before has noted would make this one cheap
  redis.call('HSET', ARGV[1] .. id, unpack(fields))
  redis.call('HSET', ARGV[1] .. id, 'account', account, 'sequence', number, 'state', ARGV[7])
  if ARGV[7] == 'waiting' then redis.call('RPUSH', ARGV[2] .. account .. '/mt', id) end
end
"""


def id_of(kind: str, number: int) -> str:
    """An id as ``_COPY`` makes it."""
    return f"{kind}-0000-4000-8000-{number:012d}"


class World:
    """A broker in the state, and what brings it to the worst of each script.

    Args:
        broker: empty.
        accounts: with a lane each, in which one waits.
        waiting: in all; the others wait in one lane.
    """

    def __init__(self, broker: EmbeddedBroker, accounts: int, waiting: int) -> None:
        self.client: redis.Redis = broker.client(timeout_s=120)
        self.pid = broker.pid
        self.scripts = Scripts(self.client)
        self.accounts, self.deep = accounts, waiting - accounts
        self.lanes = [f"a{number}/mt" for number in range(accounts)]
        self.client.config_set("appendfsync", "no")
        self._template("small", fill.document(0))
        self._template("large", b"<x>" + b"x" * LARGEST + b"</x>")
        self.copy("lane0000", accounts, accounts)
        self.copy("large000", self.deep, 0, account="large")
        self.client.hset(keys.BACKLOG, mapping=dict.fromkeys((f"a{n}" for n in range(accounts)), 1))
        self.client.hset(keys.BACKLOG, "large", self.deep)
        self.tokens = 0

    def _template(self, name: str, xml: bytes) -> None:
        self.scripts.take_in("fill", 10_000, 0)
        row = AcceptRow(name, "template", "mt", "SMS_MT", "N202", "http://127.0.0.1:9/", "http://127.0.0.1:9", xml,
               "waiting", "", b"", "", b"d" * 16, "0")  # fmt: skip
        assert self.scripts.accept("fill", SCHEMA, 10_000_000, OVERHEAD_BYTES, 0, [row]) == [1]
        self.scripts.end_intake("fill")
        self.client.delete(keys.lane("template/mt"))
        self.client.zrem(keys.READY_SUSPECT, "template/mt")
        self.client.hdel(keys.BACKLOG, "template")

    def copy(
        self,
        kind: str,
        count: int,
        accounts: int,
        state: str = "waiting",
        template: str = "small",
        account: str = "a",
    ) -> list[str]:
        """Make so many records, in lanes where they wait; returns their ids."""
        for first in range(0, count, 20_000):
            last = min(count, first + 20_000) - 1
            arguments = (keys.RECORD, keys.LANE, kind, first, last, accounts, state, account)
            self.client.eval(_COPY, 1, keys.record(template), *arguments)
        return [id_of(kind, number) for number in range(count)]

    def ready(self, ring: str = keys.READY_TRUSTED, lanes: list[str] | None = None, **pace: int) -> None:
        """Have lanes take turns, whatever they were before."""
        self.client.delete(keys.READY_TRUSTED, keys.READY_SUSPECT, keys.DELAYED, keys.PACING, keys.RATES)
        self.client.delete(*(f"{keys.WAITING_FOR_ROOM}{name}" for name in ("http://127.0.0.1:9", "large")))
        mapping = {"limit": 10, "suspect": 0, "failing": 0, "claimed": 0, "held": 0, **pace}
        chosen = self.lanes if lanes is None else lanes
        for first in range(0, len(chosen), 10_000):
            some = chosen[first : first + 10_000]
            pipe = self.client.pipeline(transaction=False)
            for lane in some:
                pipe.hset(keys.LANE_STATE + lane, mapping=mapping)
            pipe.execute()
            if ring:
                self.client.zadd(ring, dict.fromkeys(some, 0))

    def claim(self, **changes: Any) -> Any:
        """Claim once, as a loop with all its room."""
        limits = {
            "at_most": 50,
            "suspects_max": 1000,
            "free": 2000,
            "held_max": 100_000,
            "held_per_lane": 1000,
        }
        self.tokens += 1
        call = claim_call(f"loop{self.tokens}", LEASE_MS, slow_lanes=(), **(limits | changes))
        return self.scripts.run(*call)


def _claims(world: World) -> dict[str, Callable[[], Callable[[], Any]]]:
    def well() -> Callable[[], Any]:
        world.ready()
        return world.claim

    def rates() -> Callable[[], Any]:
        world.ready()
        far = str(time.time_ns() // 1000 + 10**9)
        for first in range(0, world.accounts, 10_000):
            names = [f"a{number}" for number in range(first, min(world.accounts, first + 10_000))]
            world.client.hset(keys.PACING, mapping=dict.fromkeys(names, "1 10000000000 0"))
            world.client.hset(keys.RATES, mapping=dict.fromkeys(names, far))
        return world.claim

    def due() -> Callable[[], Any]:
        rates()
        world.client.zrangestore(keys.DELAYED, keys.READY_TRUSTED, 0, -1)
        world.client.delete(keys.READY_TRUSTED)
        return world.claim

    def full() -> Callable[[], Any]:
        world.ready()
        world.client.hset(keys.ENDPOINTS, "http://127.0.0.1:9", 10)
        return lambda: (world.claim(endpoint_max=5), world.client.delete(keys.ENDPOINTS))

    def busy() -> Callable[[], Any]:
        world.ready(claimed=9)
        return lambda: world.claim(free=64)

    def still() -> Callable[[], Any]:
        world.ready()
        for first in range(0, world.accounts, 10_000):
            names = [f"a{number}" for number in range(first, min(world.accounts, first + 10_000))]
            world.client.hset(keys.ROUTES, mapping=dict.fromkeys(names, "1\ngone\n\n\n\n\n\n\n\n\n"))
        return lambda: (world.claim(), world.client.delete(keys.ROUTES))

    def failing() -> Callable[[], Any]:
        for number in range(60):
            world.client.delete(keys.lane(f"f{number}/mt"))
            world.copy(f"fail{number:04}", 1200, 0, account=f"f{number}")
        world.ready(keys.READY_SUSPECT, [f"f{number}/mt" for number in range(60)], failing=1, suspect=1)
        return world.claim

    def parked() -> Callable[[], Any]:
        world.ready("", [])
        ids = world.copy("due00000", 1000, 1000, "parked")
        world.client.zadd(keys.PARKED, dict.fromkeys(ids, 1))
        return world.claim

    def large() -> Callable[[], Any]:
        world.ready("", [])
        world.copy("wide0000", 50, 50, "waiting", "large")
        names = [f"a{number}/mt" for number in range(50)]
        for number, lane in enumerate(names):
            world.client.delete(keys.lane(lane))
            world.client.rpush(keys.lane(lane), id_of("wide0000", number))
        world.ready(lanes=names)
        return world.claim

    def revoked() -> Callable[[], Any]:
        ids = world.copy("gone0000", 20_000, 1, "cancelled")
        world.client.delete(keys.lane("gone/mt"))
        world.client.rpush(keys.lane("gone/mt"), *ids)
        world.ready(lanes=["gone/mt"])
        return world.claim

    return {
        "claim: all lanes in turn": well,
        "claim: no account may send by its rate": rates,
        "claim: all wait for their rate and are due": due,
        "claim: the endpoint that all share is full": full,
        "claim: no lane may have more": busy,
        "claim: all accounts stand still": still,
        "claim: 60 failing lanes with 1,200 waiting each": failing,
        "claim: 1,000 parked ones are due": parked,
        "claim: 50 of the largest documents": large,
        "claim: a lane of revoked ones": revoked,
    }


def _others(world: World) -> dict[str, Callable[[], Callable[[], Any]]]:
    client, scripts = world.client, world.scripts

    def take_in() -> Callable[[], Any]:
        client.delete(keys.QUEUE, keys.INTAKE, keys.INTAKE_LEASE)
        message = b"m" * 350_000
        for _ in range(50):
            client.lpush(keys.QUEUE, *[message] * 10)
        return lambda: (scripts.take_in("tick", 10_000, 500), client.delete(keys.QUEUE))

    def take_in_again() -> Callable[[], Any]:
        client.delete(keys.QUEUE, keys.INTAKE, keys.INTAKE_LEASE)
        for _ in range(50):
            client.rpush(keys.INTAKE, *[b"m" * 350_000] * 10)
        return lambda: (scripts.take_in("tick", 10_000, 500), client.delete(keys.INTAKE))

    def accept() -> Callable[[], Any]:
        client.delete(keys.QUEUE, keys.INTAKE, keys.INTAKE_LEASE)
        scripts.take_in("tick", 10_000, 0)
        rows = [
            AcceptRow(str(uuid.uuid4()), f"a{number}", "mt", "SMS_MT", "N202", "http://127.0.0.1:9/",
                       "http://127.0.0.1:9", b"x" * 1500, "waiting", "", b"", "", b"d" * 16, "0")
            for number in range(MAX_BATCH)
        ]  # fmt: skip
        return lambda: scripts.accept("tick", SCHEMA, 10_000_000, OVERHEAD_BYTES, 0, rows)

    def begin() -> Callable[[], Any]:
        ids = world.copy("held0000", 200, 200, "sending", "large")
        client.hset(keys.claims("holds"), mapping=dict.fromkeys(ids, 0))
        client.zadd(keys.CLAIMERS, {"holds": 1 << 50})
        return lambda: (scripts.begin("holds", ids), client.delete(keys.claims("holds"), keys.CLAIMERS))

    def commit() -> Callable[[], Any]:
        ids = world.copy("note0000", 200, 200, "sending")
        client.hset(keys.claims("notes"), mapping=dict.fromkeys(ids, 1))
        for number, one in enumerate(ids):
            client.hset(keys.record(one), "endpoint", f"http://127.0.{number}.1:9")
        attempt = Attempt(1, 0, "connect_timeout", 0).to_json()
        rows = [
            AttemptRow(one, f"a{number}/mt", "parked", 1, attempt, 300_000, "failed", "connect_timeout")
            for number, one in enumerate(ids)
        ]
        return lambda: (
            scripts.commit("notes", LEASE_MS, 10, 86_400, rows),
            client.delete(keys.PARKED, keys.claims("notes"), keys.STARTS, keys.ENDPOINTS),
        )

    def release() -> Callable[[], Any]:
        ids = world.copy("due00000", 1000, 1000, "parked")
        client.zadd(keys.PARKED, dict.fromkeys(ids, 1))
        return lambda: scripts.release(load().release_batch)

    def reap(how: int, count: int) -> Callable[[], Callable[[], Any]]:
        def prepare() -> Callable[[], Any]:
            ids = world.copy("reap0000", count, min(count, 5000), "sending")
            for first in range(0, count, 10_000):
                client.hset(keys.claims("dead"), mapping=dict.fromkeys(ids[first : first + 10_000], how))
            client.zadd(keys.CLAIMERS, {"dead": 1})
            return lambda: (
                scripts.reap(REAP_BATCH, 300_000),
                client.delete(keys.claims("dead"), keys.CLAIMERS, keys.QUARANTINE),
            )

        return prepare

    def retain(*arguments: int) -> Callable[[], Callable[[], Any]]:
        def prepare() -> Callable[[], Any]:
            ids = world.copy("done0000", 20_000, 1000, "delivered")
            client.zadd(keys.DONE, dict.fromkeys(ids, 1))
            client.set(keys.LEDGER_BYTES, 1 << 40)
            return lambda: scripts.retain(*arguments)

        return prepare

    def retire() -> Callable[[], Any]:
        client.zadd(keys.GONE, {"large": 1})
        return lambda: (scripts.retire(RETIRE_BATCH), client.delete(keys.GONE))

    def cancel() -> Callable[[], Any]:
        middle = client.lindex(keys.lane(LARGE), client.llen(keys.lane(LARGE)) // 2)
        return lambda: scripts.cancel(middle.decode(), 86_400)

    def replay() -> Callable[[], Any]:
        client.hset(keys.record(world.copy("dead0000", 1, 1, "dead")[0]), "reason", "resends")
        return lambda: scripts.replay(id_of("dead0000", 0))

    def give_back() -> Callable[[], Any]:
        ids = world.copy("held0001", 1500, 500, "sending")
        client.hset(keys.claims("back"), mapping=dict.fromkeys(ids, 0))
        return lambda: scripts.give_back("back", ids)

    def postpone() -> Callable[[], Any]:
        ids = world.copy("late0000", 200, 200, "sending")
        client.hset(keys.claims("late"), mapping=dict.fromkeys(ids, 1))
        return lambda: (scripts.postpone("late", 1000, "x", ids), client.delete(keys.PARKED))

    def examine() -> Callable[[], Any]:
        ids = world.copy("quar0000", 20_000, 1000, "waiting", "small")
        client.zadd(keys.QUARANTINE, dict.fromkeys(ids, 0))
        client.hset(keys.ENDPOINTS, "http://127.0.0.1:9", 5)
        return lambda: (
            scripts.examine("examiner", LEASE_MS, 5),
            client.delete(keys.QUARANTINE, keys.ENDPOINTS, keys.CLAIMERS),
        )

    def route() -> Callable[[], Any]:
        rows = {f"a{number}": "gone\n\n\n\n\n\n\n\n\n" for number in range(500)}
        for first in range(0, world.accounts, 10_000):
            names = range(first, min(world.accounts, first + 10_000))
            client.zadd(keys.LEFT, {f"l{number}": 1 for number in names})
        return lambda: (scripts.set_routes(1, rows), client.delete(keys.ROUTES, keys.GONE, keys.LEFT))

    def pace() -> Callable[[], Any]:
        rows = {f"a{number}": "2 0 0" for number in range(500)}
        return lambda: (scripts.set_pacing(rows), client.delete(keys.PACING))

    def look() -> Callable[[], Any]:
        return lambda: snapshot.read(client, load(), within_s=60)

    def claims_many(count: int) -> None:
        ids = world.copy("open0000", count, 5000, "sending")
        for first in range(0, count, 10_000):
            client.hset(keys.claims("many"), mapping=dict.fromkeys(ids[first : first + 10_000], 0))
        client.zadd(keys.CLAIMERS, {"many": 1 << 50})

    def doctor(run: Callable[[], Any]) -> Callable[[], Callable[[], Any]]:
        def prepare() -> Callable[[], Any]:
            claims_many(doctor_scripts.OPEN_MAX)  # above it nothing is counted
            client.hset(keys.ENDPOINTS, "http://127.0.0.1:9", 100_000)
            client.zadd(keys.DELAYED, dict.fromkeys(world.lanes[:10_000], 1 << 50))
            return lambda: (
                run(),
                client.delete(keys.claims("many"), keys.CLAIMERS, keys.ENDPOINTS, keys.DELAYED),
            )

        return prepare

    deep = {id_of("large000", number): (LARGE,) for number in range(100, 150)}
    return {
        "take_in: 500 of the largest messages": take_in,
        "take_in: 500 of them that a dead tick had taken": take_in_again,
        "accept: 250 for 250 lanes": accept,
        "begin: 200 held ones with the largest documents": begin,
        "commit: 200 time-outs of 200 lanes at 200 endpoints": commit,
        "release: 1,000 for 1,000 lanes": release,
        "reap: 500 in flight of 500 lanes, all at once": reap(1, 5 * REAP_BATCH),
        "reap: 100,000 held": reap(0, 100_000),
        "retain: 20,000 past their retention": retain(1, 1, 1 << 60, RETAIN_BATCH, 1, 1 << 60),
        "retain: the share of the memory is far exceeded": retain(
            1 << 50, 1 << 50, 0, RETAIN_BATCH, 1 << 50, 0
        ),
        "retire: the account of the long lane": retire,
        "cancel: in the middle of the long lane": cancel,
        "replay": replay,
        "give_back: 1,500 of 500 lanes": give_back,
        "postpone: 200 of 200 lanes": postpone,
        "examine: 20,000 in quarantine, no room": examine,
        "route: 500 accounts, 100,000 have left": route,
        "pace: 500 accounts": pace,
        "monitor: a page": look,
        "doctor: places of ids in the long lane": doctor(lambda: doctor_scripts.locate(scripts, deep)),
        "doctor: 100 lanes": doctor(lambda: doctor_scripts.count_lanes(scripts, world.lanes[:100])),
        "doctor: backlogs": doctor(lambda: doctor_scripts.count_backlogs(scripts, ["large"])),
        "doctor: endpoints": doctor(lambda: doctor_scripts.count_endpoints(scripts)),
        "doctor: 1,000 records": lambda: (
            lambda: list(
                record_fields(client, [id_of("large000", n) for n in range(1000)], "state", "account")
            )
        ),
    }


def cases(world: World) -> dict[str, Callable[[], Callable[[], Any]]]:
    """Each case by its name: what brings the broker to it, and returns what runs the script."""
    return {**_claims(world), **_others(world)}


def measure(world: World, prepare: Callable[[], Callable[[], Any]], rounds: int) -> tuple[float, float]:
    """The broker's CPU for one script call, in ms: the least and the most of so many rounds.

    Whatever else runs on the machine adds to it. Of several calls in one round, the mean.
    """
    each_ms: list[float] = []
    for _ in range(rounds):
        run = prepare()
        world.client.config_resetstat()
        before_s = exact_cpu_s(world.pid)
        run()
        took_ms = 1000 * (exact_cpu_s(world.pid) - before_s)
        stats = world.client.info("commandstats")
        calls = sum(
            stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "eval_ro")
        )
        each_ms.append(took_ms / calls)
    return min(each_ms), max(each_ms)


def run(bench: Bench) -> list[Row]:
    """Each case on one broker."""
    accounts, waiting = (10_000, 100_000) if bench.quick else (100_000, 1_000_000)
    config = {"auto-aof-rewrite-percentage": "0", "save": ""}
    with EmbeddedBroker(config=config) as broker, environment(broker.url):
        began_s = time.monotonic()
        world = World(broker, accounts, waiting)
        bench.say(f"{waiting:,} put into their lanes in {time.monotonic() - began_s:.0f} s")
        took_ms: dict[str, tuple[float, float]] = {}
        for name, prepare in cases(world).items():
            took_ms[name] = measure(world, prepare, 1 if bench.quick else 3)
            bench.say(f"{name}: {took_ms[name][0]:.1f} to {took_ms[name][1]:.1f} ms")
    worst = max(took_ms, key=lambda name: took_ms[name])
    return [
        Row(
            f"every script at its worst, {accounts:,} accounts and {waiting:,} waiting",
            f"at most {LIMIT_MS} ms",
            f"{took_ms[worst][0]:.1f} ms ({worst})",
            took_ms[worst][0] <= LIMIT_MS,
            {"worst_cases_ms": took_ms, "accounts": accounts, "waiting": waiting},
        )
    ]
