"""A network of its own in which every address is this machine, so that no packet can leave or be missed.

Run by ``postbacks_world`` in fresh namespaces (network and mounts): 8.8.8.8, 10.0.0.1, the metadata
address and 2001:db8::1 are all local, one server listens on all of them, and one name server answers
for all names. Jobs come as lines of JSON on the standard input, and what happened goes out the same way.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, cast

from postbacks.errors import InvalidUrl
from postbacks.guard import early_refusal
from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer
from postbacks.urls import check_url

#: Where the server listens, on every address of either family.
PORTS = (22, 25, 80, 443, 1023, 1024, 8080, 65535)
BODY = b"<POSTBACK/>"
TLS_RECORD = b"\x16"
DELIVERED = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def enter() -> None:
    """Make every address local and our name server the only one."""
    for command in (
        "ip link set lo up",
        "ip route add local 0.0.0.0/0 dev lo",
        "ip -6 route add local ::/0 dev lo",
    ):
        subprocess.run(command.split(), check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as resolv:
        resolv.write("nameserver 127.0.0.1\noptions timeout:5 attempts:2\n")
    subprocess.run(["mount", "--bind", resolv.name, "/etc/resolv.conf"], check=True)
    Path(resolv.name).unlink()


class Everywhere:
    """A server on every address of this network; notes each connection and the request in it."""

    def __init__(self) -> None:
        self._ready = selectors.DefaultSelector()
        for port in PORTS:
            listener = socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256
            )
            listener.setblocking(False)
            self._ready.register(listener, selectors.EVENT_READ)
        self._log: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._rounds: set[tuple[str, int, int]] = set()
        self.answer = ""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            accepted = [
                self._take(cast("socket.socket", key.fileobj).accept()[0]) for key, _ in self._ready.select()
            ]
            with self._changed:  # whoever connected before one of these has been accepted, too
                self._rounds.update(accepted)
                self._changed.notify_all()

    def _take(self, connection: socket.socket) -> tuple[str, int, int]:
        host, port = connection.getsockname()[:2]
        # connections to different addresses may have the same port of their own
        ends = (host.removeprefix("::ffff:"), port, connection.getpeername()[1])
        seen = {"address": ends[0], "port": port, "request": "", "ends": ends}
        with self._changed:
            self._log.append(seen)
        threading.Thread(target=self._serve, args=(connection, seen), daemon=True).start()
        return ends

    def _serve(self, connection: socket.socket, seen: dict[str, Any]) -> None:
        data = b""
        with contextlib.suppress(OSError), connection:
            connection.setblocking(True)
            connection.settimeout(10)
            while data[:1] != TLS_RECORD and (some := connection.recv(65536)):
                data += some
                if data.endswith(BODY):
                    seen["request"], data = data.decode("latin-1"), b""
                    connection.sendall(self.answer.encode())
                    if "Connection: close" in self.answer:
                        connection.shutdown(socket.SHUT_WR)

    def arrived(self) -> list[dict[str, Any]]:
        """The connections since the last look, with none still under way.

        A connection of our own comes behind all that were made before it.
        """
        with socket.create_connection(("127.0.0.1", PORTS[0]), 10) as own:
            ends = (*own.getpeername()[:2], own.getsockname()[1])
            with self._changed:
                assert self._changed.wait_for(lambda: ends in self._rounds, 60), "a connection was lost"
                self._rounds.clear()
                log, self._log = self._log, []
        return [seen for seen in log if seen["ends"] != ends]


class Resolver:
    """A name server on 127.0.0.1:53.

    ``zone`` has the answers to one name after the other, addresses each; the last one stays. A name
    that is not there does not exist, unless there is an answer to ``*``; the answer ``silent`` is none at all.
    """

    def __init__(self) -> None:
        self.zone: dict[str, list[Any]] = {}
        self.asked: list[str] = []
        self._asked_for: dict[tuple[str, int], int] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def set(self, zone: dict[str, list[Any]]) -> None:
        """Begin anew with these answers."""
        self.zone, self.asked, self._asked_for = zone, [], {}

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4096)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
                at += 1 + query[at]
            kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
            reply = self._reply(query, query[12 : at + 5], ".".join(labels).lower(), kind)
            if reply:
                self._socket.sendto(reply, sender)

    def _reply(self, query: bytes, question: bytes, name: str, kind: int) -> bytes | None:
        self.asked.append(name)
        turn = self._asked_for.get((name, kind), 0)
        self._asked_for[name, kind] = turn + 1
        answers = self.zone.get(name, self.zone.get("*"))
        if answers is None:
            return query[:2] + b"\x81\x83" + struct.pack("!4H", 1, 0, 0, 0) + question  # NXDOMAIN
        answer = answers[min(turn, len(answers) - 1)]
        if answer == "silent":
            return None
        family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
        packed = [
            socket.inet_pton(family, address)
            for address in answer
            if family is not None and (":" in address) == (family == socket.AF_INET6)
        ]
        records = b"".join(b"\xc0\x0c" + struct.pack("!2HIH", kind, 1, 0, len(one)) + one for one in packed)
        return query[:2] + b"\x81\x80" + struct.pack("!4H", 1, len(packed), 0, 0) + question + records


def post(job: dict[str, Any], server: Everywhere, names: Resolver) -> dict[str, Any]:
    """POST to one URL, ``together`` many by one adapter, ``times`` over by adapters of their own."""
    settings = Settings(connect_timeout_s=2, answer_timeout_s=2, **job.get("settings", {}))
    names.set(job.get("zone", {}))
    server.answer = job.get("answer", DELIVERED)
    try:  # as when an account is set
        early = early_refusal(check_url(job["url"]), settings)
    except InvalidUrl as error:
        early = str(error)
    ended: list[Outcome] = []
    for _ in range(job.get("times", 1)):
        adapter = CurlClient(settings)
        for _ in range(job.get("together", 1)):
            adapter.start(Transfer(job["url"], BODY, [], Profile.default(settings)))
        wanted = len(ended) + job.get("together", 1)
        while len(ended) < wanted:
            ended += [outcome for _, outcome in adapter.wait(0.1)]
        adapter.close()
    outcomes = [{"name": one.name, "status": one.status, "detail": one.detail} for one in ended]
    return {"early": early, "outcomes": outcomes, "arrived": server.arrived(), "asked": names.asked}


def stall(job: dict[str, Any], server: Everywhere, names: Resolver) -> dict[str, Any]:
    """POST to names whose name server is silent, in some rounds, and steadily to an address and a name that answer."""
    settings = Settings(connect_timeout_s=1.5, answer_timeout_s=1.5)
    names.set(
        {"healthy.example": [["8.8.8.8"]], **{f"dead{n}.example": ["silent"] for n in range(job["dead"])}}
    )
    server.answer = DELIVERED
    adapter = CurlClient(settings)
    profile = Profile.default(settings)
    ended: dict[str, list[tuple[str, float]]] = {"dead": [], "address": [], "name": []}
    longest_turn_s = 0.0
    for _ in range(job["rounds"]):
        for number in range(job["dead"]):
            adapter.start(Transfer(f"http://dead{number}.example/", BODY, [], profile, owner="dead"))
        adapter._resolver._cache.clear()  # in the second round, too, the healthy name waits with the dead ones
        began_s = turn_s = next_s = time.monotonic()
        while time.monotonic() - began_s < job["seconds"] or len(adapter):
            now_s = time.monotonic()
            longest_turn_s, turn_s = max(longest_turn_s, now_s - turn_s), now_s
            if now_s >= next_s and now_s - began_s < job["seconds"]:
                next_s += 0.05
                for owner, host in (("address", "8.8.4.4"), ("name", "healthy.example")):
                    adapter.start(Transfer(f"http://{host}/", BODY, [], profile, owner=owner))
            for transfer, outcome in adapter.wait(0.05):
                ended[transfer.owner].append((outcome.name, outcome.elapsed_s))
    threads = len(list(Path("/proc/self/task").iterdir()))
    waiting = sum(map(len, adapter._resolver._waiting))
    began_s = time.monotonic()
    adapter.close()
    closing_s = time.monotonic() - began_s
    return {
        "ended": ended,
        "longest_turn_s": longest_turn_s,
        "closing_s": closing_s,
        "threads": threads,
        "waiting": waiting,
    }


def keep(job: dict[str, Any], server: Everywhere, names: Resolver) -> dict[str, Any]:
    """POST 20 times in turn; what came of it, and how many connections it took."""
    settings = Settings(**job.get("settings", {}))
    names.set(job.get("zone", {}))
    server.answer = DELIVERED.replace("Connection: close\r\n", "")
    adapter = CurlClient(settings)
    transfers = [Transfer(job["url"], BODY, [], Profile.default(settings)) for _ in range(20)]
    outcomes = [adapter.post(transfer).name for transfer in transfers]
    adapter.close()
    return {"outcomes": outcomes, "connections": len(server.arrived())}


def main() -> None:
    """Serve jobs until the input ends."""
    enter()
    server, names = Everywhere(), Resolver()
    for line in sys.stdin:
        job = json.loads(line)
        result = {"post": post, "stall": stall, "keep": keep}[job.pop("do")](job, server, names)
        print(json.dumps(result), flush=True)
    os._exit(0)  # threads of libcurl's that wait for a silent name server are not waited for


if __name__ == "__main__":
    main()
