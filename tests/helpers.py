"""Ways to drive the system in tests: real processes, or its parts in this process with the clock moved."""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from postbacks import accounts, keys, settings
from postbacks.delivery.loop import DeliveryLoop
from postbacks.delivery.profiles import Profiles
from postbacks.devtools.embedded_broker import PORTS, EmbeddedBroker
from postbacks.devtools.stack import LocalStack
from postbacks.ledger import states
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import Record
from postbacks.operate.accounts import publish
from postbacks.queue.scripts import Scripts
from postbacks.queue.tick import Tick, TickResult
from postbacks.testing.stack import store_account
from postbacks.transport.client import CurlClient

#: What every process of the suite needs; receivers are on loopback.
BASE_ENV = {"POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128"}
#: How long a test waits for what happens at once on a machine that has nothing else to do.
WAIT_S = 120
#: Sockets that are bound and never listen.
_refusing: list[socket.socket] = []
T = TypeVar("T")


def short_and_long(short: T, long: T) -> list[Any]:
    """Values of a parameter of a test that runs a whole stack: the suite tries the first, `make test-long` the second."""
    return [short, pytest.param(long, marks=pytest.mark.long)]


def eventually(look: Callable[[], T], timeout_s: float = WAIT_S, what: str = "it") -> T:
    """Look again and again until there is something true; the last look is part of the failure."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what} did not happen within {timeout_s} s; last seen: {seen!r}")
        time.sleep(0.02)


def ended(client: redis.Redis, postback_id: str, timeout_s: float = WAIT_S) -> Record:
    """The record of a postback once it has come to an end."""
    ledger = Ledger(client)

    def look() -> Record | None:
        record = ledger.find(postback_id)
        return record if record is not None and record.state in states.FINAL_STATES else None

    return eventually(look, timeout_s, f"the end of postback {postback_id}")


def set_account(name: str, **urls: object) -> None:
    """Store an account on the suite's broker."""
    store_account(name, **urls)


def remove_account(name: str) -> None:
    """Remove an account, as `postbacks account remove` does."""
    accounts.redis_accounts().remove(name)
    publish(name, None)


class Rig:
    """Tick and delivering loop in this process, on the suite's broker, with a clock that can be moved."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.client = broker.client()
        self.scripts = Scripts(self.client)
        self.settings = settings.load()
        self.adapter = CurlClient(self.settings)

    def advance(self, seconds: float) -> None:
        """Move the scripts' clock on."""
        self.scripts.clock_offset_ms += int(seconds * 1000)

    def tick(self) -> TickResult:
        """Run one tick."""
        return Tick(self.scripts, accounts.store(), self.settings).run()

    def deliver(self) -> int:
        """A delivering loop and an examiner, until nothing is ready; returns the POSTs made."""
        return self.deliver_lanes() + self.examine()

    def deliver_lanes(self, *, examines: bool = False, **more: Any) -> int:
        """Run one delivering loop until nothing is ready; returns the POSTs made."""
        from postbacks.tasks import decide

        profiles = Profiles(accounts.store(), self.settings, self.scripts)
        loop = DeliveryLoop(
            self.scripts, self.adapter, profiles, self.settings, decide, examines=examines, **more
        )
        return loop.run()

    def examine(self) -> int:
        """Run one examiner until the quarantine is empty; returns the POSTs made."""
        return self.deliver_lanes(examines=True)

    def record(self, postback_id: str) -> Record:
        """A postback's record."""
        return Ledger(self.client).get(postback_id)

    def close(self) -> None:
        """Release what the rig holds."""
        self.adapter.close()
        self.client.close()


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables for this process and read the settings anew."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    settings.load.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        settings.load.cache_clear()


class BrokerAt:
    """A broker as ``running`` wants it, at a URL that is not the embedded broker's."""

    alive = True

    def __init__(self, url: str) -> None:
        self.url = url


@contextmanager
def running(
    broker: EmbeddedBroker | BrokerAt,
    log_dir: Path,
    *,
    pool: str = "threads",
    workers: int = 1,
    beats: int = 1,
    concurrency: int = 4,
    env: Mapping[str, str] | None = None,
) -> Iterator[LocalStack]:
    """Real workers and a real beat on a broker, forked; their logs are shown when the test fails."""
    import forked_processes  # which benchmarks, that use other parts of this module, do not find

    folder = log_dir / f"logs-{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    stack = LocalStack(
        broker,
        workers=workers,
        beats=beats,
        pool=pool,
        concurrency=concurrency,
        env={**BASE_ENV, **(env or {})},
        log_dir=folder,
    )
    try:
        with forked_processes.forking(), stack:
            yield stack
    except BaseException:
        for log in sorted(folder.iterdir()):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
        raise


def free_port() -> int:
    """A port that was free a moment ago: none that the system gives to a connection, and none of our brokers'."""
    for port in random.sample(range(10_000, PORTS.start), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("a hundred ports are in use")


def refusing_port() -> int:
    """A port that refuses every connection for as long as this process runs."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    _refusing.append(holder)
    return holder.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose connections are never made: its queue of unaccepted ones is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers: list[socket.socket] = []
        try:
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                with suppress(BlockingIOError):
                    filler.connect(listener.getsockname())
                fillers.append(filler)
            yield listener.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def dripping(
    port: int, count: int, text: bytes = b"GET /metrics HTTP/1.1\r\nHost: a"
) -> Iterator[list[socket.socket]]:
    """Connections that have begun to ask."""
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            connections.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)))
            connections[-1].sendall(text)
        yield connections


def places(client: redis.Redis) -> dict[str, list[str]]:
    """Every id and all the places it stands in."""
    found: dict[str, list[str]] = {}
    for key in client.scan_iter(f"{keys.LANE}*"):
        for one in client.lrange(key, 0, -1):
            found.setdefault(one.decode(), []).append("waiting")
    for key in client.scan_iter(f"{keys.CLAIMS}*"):
        for one in client.hkeys(key):
            found.setdefault(one.decode(), []).append("sending")
    indexes = {keys.QUARANTINE: "waiting", keys.PARKED: "parked", keys.DONE: "done", keys.DEAD: "dead"}
    for key, place in indexes.items():
        for one in client.zrange(key, 0, -1):
            found.setdefault(one.decode(), []).append(place)
    return found


def check_places(client: redis.Redis) -> Counter[str]:
    """Each id in one place, the place its record names, and every record in a place; returns the counts."""
    found = places(client)
    assert {one: where for one, where in found.items() if len(where) != 1} == {}
    done = {"delivered", "skipped", "cancelled"}
    records = {key.decode().removeprefix(keys.RECORD) for key in client.scan_iter(f"{keys.RECORD}*")}
    assert records == set(found)
    for one, (where,) in found.items():
        state = client.hget(keys.record(one), "state").decode()
        assert ("done" if state in done else state) == where, one
    assert client.llen(keys.INTAKE) == 0
    return Counter(where for (where,) in found.values())


def claim(rig: Rig, token: str, **changes: int):
    """Claim once, with wide limits."""
    limits = {
        "at_most": 100,
        "suspects_max": 100,
        "free": 2000,
        "held_max": 1000,
        "held_per_lane": 100,
    } | changes
    return rig.scripts.claim(token, 30_000, slow_lanes=(), **limits)
