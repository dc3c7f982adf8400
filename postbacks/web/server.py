"""Server of one web process: uvicorn on a socket that was opened before anything is said."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

import uvicorn

from postbacks.errors import BadSetting
from postbacks.logs import EventLog
from postbacks.web.app import NO_LOGIN, make_app
from postbacks.web.hasty import Hasty

if TYPE_CHECKING:
    from postbacks.web.config import Config

log = EventLog(__name__)

#: Connections at a time, live parts of fifty viewers among them; more are answered 503.
CONNECTIONS_MAX: Final = 500
#: Seconds that a connection may stand idle, and that open requests get when the process stops.
_IDLE_S: Final = 15
_STOP_S: Final = 5


class WebServer:
    """Serves the dashboard until a signal.

    Args:
        config: what it serves, and where.
        fd: socket of that address that listens already; None to listen.

    Raises:
        BadSetting: it must not be started so, the port is in use, or the address is not this machine's.
    """

    def __init__(self, config: Config, fd: int | None = None) -> None:
        config.check()
        self._config = config
        self._socket = _listen(config.host, config.port) if fd is None else socket.socket(fileno=fd)
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(config),
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,  # whom the connection is from decides whom the proxy may name
                http=Hasty,
                ws="none",
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=_IDLE_S,
                timeout_graceful_shutdown=_STOP_S,
            )
        )

    @property
    def url(self) -> str:
        """Address of its first page."""
        host = self._config.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def log_address(self) -> None:
        """Log where it is, and where no login is set."""
        log.info("web.served", "" if self._config.has_login else NO_LOGIN, url=self.url)

    def serve(self) -> None:
        """Serve in this thread, until SIGINT or SIGTERM."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Let ``serve`` return."""
        self._server.should_exit = True

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Two addresses of one name would be two sockets: the first is listened on.
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError, UnicodeError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        trouble = (
            "is in use: stop what listens there, or give another port"
            if in_use
            else f"cannot be had: {error}"
        )
        raise BadSetting(f"Port {port} of {host} {trouble}.") from None
