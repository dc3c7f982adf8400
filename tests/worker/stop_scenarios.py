"""Workers that are stopped in different ways, side by side: each on a database of its own."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from events import EVENT
from helpers import BASE_ENV, environment, set_account
from kombu import Connection

from postbacks import accounts, keys, send_postbacks, settings
from postbacks.broker.client import client_for
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Received, Receiver
from postbacks.devtools.stack import CeleryProcess
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import Record
from postbacks.queue.scripts import Scripts
from postbacks.queue.tick import Tick
from postbacks.tasks import deliver, dispatch

#: Celery's soft shutdown, as its documentation advises: with it on when idle as well.
SOFT = "worker_soft_shutdown_timeout = 15\nworker_enable_soft_shutdown_on_idle = True\n"
GOOD = 5  # accounts whose receiver answers 200, each with ten postbacks
BAD = 10  # postbacks of the account whose receiver answers 500: one is sent, the others are held


@dataclass
class World:
    """Worker on a database of its own, with postbacks in flight, held and waiting."""

    name: str
    url: str
    worker: CeleryProcess
    client: redis.Redis
    ids: dict[str, list[str]] = field(default_factory=dict)

    @property
    def group(self) -> int:
        """The worker's process group."""
        return os.getpgid(self.worker.pid)

    def records(self) -> dict[str, Record]:
        """Every postback's record."""
        ledger = Ledger(self.client)
        return {one: ledger.get(one) for ids in self.ids.values() for one in ids}

    def lane(self, name: str) -> list[str]:
        """The ids that wait in a lane."""
        return [one.decode() for one in self.client.lrange(keys.lane(name), 0, -1)]

    def wake(self, count: int = 1) -> None:
        """Wake delivering loops, as a tick does."""
        with Connection(self.url) as connection:
            for _ in range(count):
                deliver.apply_async(connection=connection)

    def tick_there(self) -> None:
        """Have the worker itself tick, unless its queue holds anything."""
        with environment(POSTBACKS_BROKER_URL=self.url), Connection(self.url) as connection:
            dispatch.apply_async(connection=connection)

    def tick(self) -> None:
        """Take in, release and reap, here."""
        with environment(POSTBACKS_BROKER_URL=self.url):
            Tick(Scripts(self.client), accounts.store(), settings.load()).run()


class Answers:
    """200 or 500 after ``open_s``, by the path; counts what is open."""

    def __init__(self, open_s: float) -> None:
        self.open_s = open_s
        self._failed: set[str] = set()  # paths of which the first POST has failed

    def __call__(self, post: Received) -> Answer:
        _, _, account = post.path.strip("/").partition("/")
        if account == "bad":
            # The first one fails at once: from then on the lane has one transfer and holds the rest.
            is_first = post.path not in self._failed
            self._failed.add(post.path)
            return Answer(500, delay_s=0 if is_first else self.open_s)
        return Answer(delay_s=self.open_s)


def make(
    broker: EmbeddedBroker, number: int, name: str, folder: Path, *, pool: str = "threads", config: str = "",
    concurrency: int = 4, env: dict[str, str] | None = None,
) -> World:  # fmt: skip
    """A world, its worker started and not waited for."""
    url = broker.url.removesuffix("/0") + f"/{number}"
    home = folder / name
    home.mkdir()
    (home / "celeryconfig.py").write_text(config)
    worker = CeleryProcess(
        "worker",
        env={**BASE_ENV, "POSTBACKS_BROKER_URL": url, **(env or {})},
        args=[f"--pool={pool}", f"--concurrency={concurrency}", "--without-mingle", "--without-gossip",
              "--loglevel=INFO", f"--hostname={name}@%h"],
        log_path=home / "worker.log",
        cwd=home,
    )  # fmt: skip
    worker.start()
    return World(name, url, worker, client_for(url, 5.0))


def fill(world: World, receiver: Receiver) -> None:
    """Ten postbacks of each good account and of the bad one, taken in."""
    with environment(POSTBACKS_BROKER_URL=world.url):
        for account in [f"a{n}" for n in range(GOOD)] + ["bad"]:
            set_account(account, url=receiver.url(f"/{world.name}/{account}"))
            world.ids[account] = send_postbacks(account, [EVENT] * BAD)
    world.tick()


def posts_of(world: World, receiver: Receiver) -> dict[str, list[Received]]:
    """Return the POSTs that the receiver got of a world, by id."""
    found: dict[str, list[Received]] = defaultdict(list)
    for post in receiver.received:
        if post.path.startswith(f"/{world.name}/"):
            found[post.postback_id].append(post)
    return found


def flight(world: World, receiver: Receiver) -> bool:
    """Tell whether each good account has one open, and the bad one has one open and the others held."""
    got = posts_of(world, receiver)
    bad = [one for one in got if one in world.ids["bad"]]
    return len(bad) == 2 and len(got) == GOOD + 2


def children(parent: int, port: int) -> list[int]:
    """The children of a process that have a connection to a port of 127.0.0.1."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[2] == f"0100007F:{port:04X}" and row[3] == "01"}
    found = []
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with suppress(OSError):  # closed while we look
            if any(str(fd.readlink()) in sockets for fd in Path(f"/proc/{child}/fd").iterdir()):
                found.append(int(child))
    return found
