"""``/metrics``, ``/healthz`` and ``/readyz`` over HTTP, in threads of their own."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from postbacks.errors import BadSetting
from postbacks.monitor import health

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from postbacks.settings import Settings

#: Seconds that a client may take to ask and to be answered.
CLIENT_TIMEOUT_S: Final = 10


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
        try:
            of_kind = _ServerV6 if ":" in host else _Server
            self._server = of_kind((host, port), self._handler())
        except (OSError, OverflowError) as error:
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
            judged = health.judge(self._settings)
            if "application/json" in accept:
                body = json.dumps(judged.shown()) + "\n"
                return (200 if judged.ok else 503), "application/json", body.encode()
            return (200 if judged.ok else 503), plain, (judged.line + "\n").encode()
        return 404, plain, b"Here are /metrics, /healthz and /readyz.\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_TIMEOUT_S
            server_version, sys_version = "postbacks", ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                status, content_type, body = answer(path, self.headers.get("Accept", ""))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - the base's name

            def log_message(self, *_: Any) -> None:
                """Nothing: a scrape is no event."""

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Bind without the base's look-up of the machine's own name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that went away is no event."""


class _ServerV6(_Server):
    address_family = socket.AF_INET6
