"""``/metrics``, ``/healthz`` and ``/readyz`` over HTTP, in a few threads of their own.

Whoever reaches the port can hold ``CLIENTS_MAX`` connections and as many threads, each for ``CLIENT_TIMEOUT_S``, and no
more: descriptors and threads are the deliveries'.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from postbacks import printable
from postbacks.errors import BadSetting
from postbacks.monitor import health
from postbacks.monitor.metrics import FRESH_S

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from postbacks.monitor.health import Health
    from postbacks.settings import Settings

#: Seconds that a client may take for all of it: to ask, header included, and to take the answer.
CLIENT_TIMEOUT_S: Final = 10.0
#: Connections at a time: two Prometheus servers, a container's probes and a person look at once, more do not. Each has
#: a descriptor here and may have one to the broker; ``transport/limits.py`` leaves them beside the POSTs'.
CLIENTS_MAX: Final = 16
#: Seconds until a place is free whose client was dropped, at most, and to the next accept where that has failed.
_PLACE_TIMEOUT_S: Final = 1.0
_ACCEPT_AGAIN_S: Final = 0.1


class MonitorServer:
    """Serves the pages until it is closed.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        collectors: what ``/metrics`` shows.
        settings: limits of ``/readyz``.
        alive: whether the process that serves is; ``/healthz`` says 503 where it is not.

    Raises:
        BadSetting: the port is in use, or the address is not this machine's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        collectors: list[Collector],
        settings: Settings,
        *,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        registry = CollectorRegistry()
        for collector in collectors:
            registry.register(collector)
        self._registry = registry
        self._settings = settings
        self._alive = alive
        self._judging = threading.Lock()
        self._judged: Health | None = None
        self._judged_s = 0.0
        if not host:
            raise BadSetting(
                "An address to listen on is empty: give 127.0.0.1, or 0.0.0.0 for all interfaces."
            )
        try:
            of_kind = _ServerV6 if ":" in host else _Server
            self._server = of_kind((host, port), self._handler())
        except (OSError, OverflowError, TypeError, ValueError) as error:  # the latter two: no host's name
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            what = (
                "is in use: stop what listens there, or give another port"
                if in_use
                else f"cannot be had: {error}"
            )
            raise BadSetting(f"Port {port} of {host} {what}.") from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self.serve, name="postbacks-metrics", daemon=True)

    def start(self) -> None:
        """Serve in a thread that does not keep the process alive."""
        self._thread.start()

    def serve(self) -> None:
        """Serve in this thread, until ``close`` or a signal."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Stop serving and give the port back."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def _judge(self) -> Health:
        """Judge the system for all who ask within ``FRESH_S``: it may take the broker longer than any other look."""
        with self._judging:
            if self._judged is None or time.monotonic() - self._judged_s >= FRESH_S:
                self._judged = health.judge(self._settings)
                self._judged_s = time.monotonic()
            return self._judged

    def _answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return 200, content_type, encode(self._registry)
        plain = "text/plain; charset=utf-8"
        if path == "/healthz":
            alive = self._alive()
            return (200 if alive else 503), plain, b"alive\n" if alive else b"stopping\n"
        if path == "/readyz":
            if not self._alive():
                return 503, plain, b"not well: it is stopping.\n"
            judged = self._judge()
            if "application/json" in accept:
                body = printable.json_text(judged.to_public_dict()) + "\n"
                return (200 if judged.ok else 503), "application/json", body.encode()
            return (200 if judged.ok else 503), plain, (printable.printable(judged.line) + "\n").encode()
        return 404, plain, b"Here are /metrics, /healthz and /readyz.\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            server: _Server
            server_version, sys_version = "postbacks", ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                with self.server.answering(self.connection):
                    status, content_type, body = answer(path, self.headers.get("Accept", ""))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - the base's name

            def log_message(self, *_: Any) -> None:
                """Log nothing: a scrape is no event."""

        return Handler


@dataclass(slots=True, eq=False)
class _Client:
    """A connection, from its acceptance to its end."""

    connection: socket.socket
    deadline_s: float
    is_answered: bool = False  # it has asked in full and waits for us

    def drop(self) -> None:
        """End the connection; the thread that serves it reads the end and closes it."""
        with suppress(OSError):  # the client has gone
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    """HTTP server with ``CLIENTS_MAX`` places; where all are taken, the oldest client that keeps us waiting goes."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = (
        1024  # what waits here has no descriptor yet; what finds it full tries again after a second
    )

    def __init__(self, *args: Any) -> None:
        self._clients: dict[socket.socket, _Client] = {}  # in the order of their acceptance
        # Held wherever a descriptor is closed or shut down, so that none is shut down that another has by now.
        self._places = threading.Condition()
        super().__init__(*args)

    def server_bind(self) -> None:
        """Bind without the base's look-up of the machine's own name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; where no descriptor is left for it, wait a moment, as the next try follows at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_ACCEPT_AGAIN_S)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Give a client a place, a silent one's where all are taken; False: all are being answered."""
        del client_address
        with self._places:
            if len(self._clients) >= CLIENTS_MAX:
                silent = [client for client in self._clients.values() if not client.is_answered]
                if not silent:
                    return False
                silent[0].drop()
                if not self._places.wait_for(lambda: len(self._clients) < CLIENTS_MAX, _PLACE_TIMEOUT_S):
                    return False
            self._clients[request] = _Client(request, time.monotonic() + CLIENT_TIMEOUT_S)
        return True

    @contextmanager
    def answering(self, connection: socket.socket) -> Iterator[None]:
        """Keep a client's place while its answer is made."""
        with self._places:
            client = self._clients[connection]
            client.is_answered = True
        try:
            yield
        finally:
            client.is_answered = False

    def service_actions(self) -> None:
        """Drop the clients past their deadline; ``serve_forever`` calls it several times a second."""
        now_s = time.monotonic()
        with self._places:
            for client in self._clients.values():
                if client.deadline_s <= now_s and not client.is_answered:
                    client.drop()

    def close_request(self, request: Any) -> None:
        """Close a connection and free its place."""
        with self._places:
            request.close()
            if self._clients.pop(request, None):
                self._places.notify()

    def server_close(self) -> None:
        """Give the port back and drop all clients."""
        super().server_close()
        with self._places:
            for client in self._clients.values():
                client.drop()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that went away is no event."""


class _ServerV6(_Server):
    address_family = socket.AF_INET6
