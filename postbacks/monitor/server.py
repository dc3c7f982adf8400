"""HTTP server of ``/metrics``, ``/healthz`` and ``/readyz``, with a few threads of its own.

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
#: Seconds within which a client that was dropped leaves, at most, and until the next accept after one that failed.
_LEAVE_TIMEOUT_S: Final = 1.0
_ACCEPT_AGAIN_S: Final = 0.1

#: Status, content type and body of an answer.
Answer = tuple[int, str, bytes]
_TEXT: Final = "text/plain; charset=utf-8"


class MonitorServer:
    """Serves the pages until it is closed.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        collectors: metrics of ``/metrics``.
        settings: limits of ``/readyz``.
        alive: tells whether the process that serves goes on; ``/healthz`` answers 503 where it is stopping.

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
            server_class = _ServerV6 if ":" in host else _Server
            self._server = server_class((host, port), self._handler())
        except (OSError, OverflowError, TypeError, ValueError) as error:  # the latter two: no host's name
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            trouble = (
                "is in use: stop what listens there, or give another port"
                if in_use
                else f"cannot be had: {error}"
            )
            raise BadSetting(f"Port {port} of {host} {trouble}.") from None
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
        """Judge the system for all who ask within ``FRESH_S``: a snapshot is the dearest question to the broker."""
        with self._judging:
            if self._judged is None or time.monotonic() - self._judged_s >= FRESH_S:
                self._judged = health.judge(self._settings)
                self._judged_s = time.monotonic()
            return self._judged

    def _metrics(self, accept: str) -> Answer:
        encode, content_type = choose_encoder(accept)
        return 200, content_type, encode(self._registry)

    def _healthz(self, _accept: str) -> Answer:
        return (200, _TEXT, b"alive\n") if self._alive() else (503, _TEXT, b"stopping\n")

    def _readyz(self, accept: str) -> Answer:
        if not self._alive():
            return 503, _TEXT, b"not well: it is stopping.\n"
        judged = self._judge()
        status = 200 if judged.ok else 503
        if "application/json" in accept:
            body = printable.json_text(judged.to_public_dict()) + "\n"
            return status, "application/json", body.encode()
        return status, _TEXT, (printable.printable(judged.line) + "\n").encode()

    def _not_found(self, _accept: str) -> Answer:
        return 404, _TEXT, b"Here are /metrics, /healthz and /readyz.\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        routes = {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}
        not_found = self._not_found

        class Handler(BaseHTTPRequestHandler):
            server: _Server
            server_version, sys_version = "postbacks", ""

            def do_GET(self) -> None:
                answer = routes.get(self.path.partition("?")[0], not_found)
                with self.server.answering(self.connection):
                    status, content_type, body = answer(self.headers.get("Accept", ""))
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
    """A client's connection, from its acceptance to its end."""

    connection: socket.socket
    deadline_s: float
    is_answered: bool = False  # the client has asked in full and waits for us

    def drop(self) -> None:
        """End the connection; the thread that serves it reads the end and closes it."""
        with suppress(OSError):  # the client has gone
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    """HTTP server of ``CLIENTS_MAX`` clients at most; at the limit the oldest client that keeps us waiting is dropped."""

    daemon_threads = True
    block_on_close = False
    #: A connection that waits here has no descriptor yet; one that finds the queue full tries again after a second.
    request_queue_size = 1024

    def __init__(self, *args: Any) -> None:
        self._clients: dict[socket.socket, _Client] = {}  # in the order of their acceptance
        # Held wherever a descriptor is closed or shut down, so that none is shut down that another client has by now.
        self._clients_changed = threading.Condition()
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
        """Take a client, and drop a silent one where there are too many; False where all are being answered."""
        del client_address
        with self._clients_changed:
            if len(self._clients) >= CLIENTS_MAX:
                silent = [client for client in self._clients.values() if not client.is_answered]
                if not silent:
                    return False
                silent[0].drop()
                if not self._clients_changed.wait_for(
                    lambda: len(self._clients) < CLIENTS_MAX, _LEAVE_TIMEOUT_S
                ):
                    return False
            self._clients[request] = _Client(request, time.monotonic() + CLIENT_TIMEOUT_S)
        return True

    @contextmanager
    def answering(self, connection: socket.socket) -> Iterator[None]:
        """Keep a client while its answer is made."""
        with self._clients_changed:
            client = self._clients[connection]
            client.is_answered = True
        try:
            yield
        finally:
            client.is_answered = False

    def service_actions(self) -> None:
        """Drop the clients past their deadline; ``serve_forever`` calls it several times a second."""
        now_s = time.monotonic()
        with self._clients_changed:
            for client in self._clients.values():
                if client.deadline_s <= now_s and not client.is_answered:
                    client.drop()

    def close_request(self, request: Any) -> None:
        """Close a connection and forget its client."""
        with self._clients_changed:
            request.close()
            if self._clients.pop(request, None):
                self._clients_changed.notify()

    def server_close(self) -> None:
        """Give the port back and drop all clients."""
        super().server_close()
        with self._clients_changed:
            for client in self._clients.values():
                client.drop()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that went away is no event."""


class _ServerV6(_Server):
    address_family = socket.AF_INET6
