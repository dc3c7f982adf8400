"""The far side of a crossing: a receiver, and the forwarder between the two networks.

``near.py`` starts it in a network namespace of its own and hands it the near side's TUN device. The forwarder hands
each packet of one device to the other after a delay, and notes it. Orders come as lines of JSON on the standard
input, replies go out the same way.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

NEAR, FAR = "10.99.0.1", "10.99.0.2"
PORTS = {"http": 80, "https": 443}
BODY = b"<POSTBACK/>"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def open_tun(address: str) -> int:
    """Make this namespace's only device to the other side; returns its descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    for command in (f"ip address add {address}/24 dev tun0", "ip link set tun0 up", "ip link set lo up"):
        subprocess.run(command.split(), check=True)
    return tun


@dataclass
class Passage:
    """A TCP packet on its way: when the forwarder took it and when it handed it on.

    Attributes:
        near_port: of the near side, which names the connection.
        from_near: whether the near side sent it.
    """

    near_port: int
    from_near: bool
    flags: int
    payload_bytes: int
    taken_s: float
    handed_s: float = 0.0


class Forwarder:
    """Hands packets from one TUN device to the other, each after a delay."""

    def __init__(self, near_tun: int, far_tun: int) -> None:
        self._near_tun, self._far_tun = near_tun, far_tun
        self.delay_s = {True: 0.0, False: 0.0}  # by from_near
        self.passages: list[Passage] = []
        threading.Thread(target=self._forward, daemon=True).start()

    def _forward(self) -> None:
        due: list[tuple[float, int, int, bytes, Passage | None]] = []
        number = 0
        while True:
            timeout_s = max(0.0, due[0][0] - time.monotonic()) if due else None
            readable, _, _ = select.select([self._near_tun, self._far_tun], [], [], timeout_s)
            now_s = time.monotonic()
            for tun in readable:
                from_near = tun == self._near_tun
                to_tun = self._far_tun if from_near else self._near_tun
                with contextlib.suppress(BlockingIOError):
                    while True:
                        packet = os.read(tun, 65_536)
                        number += 1
                        passage = self._note(packet, from_near, now_s)
                        heapq.heappush(
                            due, (now_s + self.delay_s[from_near], number, to_tun, packet, passage)
                        )
            while due and due[0][0] <= time.monotonic():
                _, _, to_tun, packet, passage = heapq.heappop(due)
                if passage is not None:
                    passage.handed_s = time.monotonic()
                os.write(to_tun, packet)

    def _note(self, packet: bytes, from_near: bool, now_s: float) -> Passage | None:
        if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
            return None
        at = (packet[0] & 15) * 4
        from_port, to_port = struct.unpack_from("!2H", packet, at)
        payload_bytes = len(packet) - at - (packet[at + 12] >> 4) * 4
        near_port = from_port if from_near else to_port
        passage = Passage(near_port, from_near, packet[at + 13], payload_bytes, now_s)
        self.passages.append(passage)
        return passage


class Receiver:
    """Answers 200 to each request and keeps its connections, until it is told what to do with them."""

    def __init__(self, certificate: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listeners = {
            socket.create_server((FAR, port), backlog=64): scheme for scheme, port in PORTS.items()
        }
        self._connections: list[socket.socket] = []
        self._handshaking: set[socket.socket] = set()
        self._lingering: set[socket.socket] = set()
        self.posts: Counter[str] = Counter()

    def ready(self) -> list[socket.socket]:
        """Return its sockets."""
        return [*self._listeners, *self._connections, *self._lingering]

    def serve(self, ready: socket.socket) -> None:
        """Accept a connection, or answer a request."""
        if ready in self._listeners:
            connection, _ = ready.accept()
            if self._listeners[ready] == "https":
                connection.setblocking(False)
                connection = self._context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                self._handshaking.add(connection)
            self._connections.append(connection)
            return
        if ready in self._handshaking:
            with contextlib.suppress(ssl.SSLWantReadError):
                ready.do_handshake()
                self._handshaking.remove(ready)
                ready.setblocking(True)
            return
        if ready in self._lingering:
            if not ready.recv(65_536):
                self._lingering.remove(ready)
                ready.close()
            return
        data = b""
        with contextlib.suppress(OSError):
            while not data.endswith(BODY) and (piece := ready.recv(65_536)):
                data += piece
        if not data.endswith(BODY):
            self._connections.remove(ready)
            ready.close()
            return
        self.posts[urlsplit(data.split(b" ", 2)[1].decode()).path] += 1
        ready.sendall(OK)

    def end(self, how: str) -> None:
        """End all connections, which rest.

        Args:
            how: by ``fin``; by ``close_notify`` and FIN (TLS); by ``reset``; ``lingering`` with a FIN first, passing
                over what still comes, as Apache does.
        """
        for connection in self._connections:
            if how == "lingering":
                connection.shutdown(socket.SHUT_WR)
                self._lingering.add(connection)
                continue
            if how == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif how == "close_notify" and isinstance(connection, ssl.SSLSocket):
                connection.setblocking(False)
                with contextlib.suppress(ssl.SSLWantReadError):
                    connection.unwrap()
            connection.close()
        self._connections.clear()


def far(near_tun: int, certificate: str) -> None:
    """Be the far side until the input ends."""
    forwarder = Forwarder(near_tun, open_tun(FAR))
    receiver = Receiver(certificate)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([sys.stdin, *receiver.ready()], [], [])
        if sys.stdin not in readable:
            for ready in readable:
                receiver.serve(ready)
            continue
        line = sys.stdin.readline()
        if not line:
            return
        order, *arguments = json.loads(line)
        reply: Any = None
        if order == "begin":
            forwarder.delay_s[True], forwarder.delay_s[False] = arguments
            forwarder.passages.clear()
            receiver.posts.clear()
        elif order == "end":
            receiver.end(*arguments)
        elif order == "look":
            reply = {"posts": receiver.posts, "passages": [asdict(passage) for passage in forwarder.passages]}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    far(int(sys.argv[1]), sys.argv[2])
