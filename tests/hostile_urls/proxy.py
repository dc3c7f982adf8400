"""A small forward and CONNECT proxy on loopback that sends everything to one place."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Proxy:
    """Takes requests for any host, and hands them to the port ``to`` of 127.0.0.1.

    Args:
        to: where everything goes.
        answer: instead, the proxy's own bytes to every request; empty for none at all.
    """

    def __init__(self, to: int = 0, answer: bytes | None = None) -> None:
        self.heads: list[str] = []  # of the requests, as they came
        self._to = to
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []

    @property
    def url(self) -> str:
        """Return the value of ``POSTBACKS_PROXY_URL``."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data and (some := connection.recv(65536)):
                data += some
            head, _, body = data.partition(b"\r\n\r\n")
            self.heads.append(head.decode("latin-1"))
            if self._answer is not None:
                connection.sendall(self._answer)
                if self._answer:
                    connection.shutdown(socket.SHUT_RDWR)
                return
            onward = socket.create_connection(("127.0.0.1", self._to), 10)
            self._open.append(onward)
            if head.startswith(b"CONNECT "):
                connection.sendall(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
            else:
                method, target, rest = head.split(b" ", 2)
                path = b"/" + target.split(b"/", 3)[3]
                onward.sendall(method + b" " + path + b" " + rest + b"\r\n\r\n" + body)
            threading.Thread(target=_pump, args=(onward, connection), daemon=True).start()
            _pump(connection, onward)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while some := source.recv(65536):
            sink.sendall(some)
        sink.shutdown(socket.SHUT_WR)
