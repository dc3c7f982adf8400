"""The contenders as running processes, held until the backlog stands and then let go."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

from benchmarks.machine import cpu_s
from benchmarks.scenario import until
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.stack import CeleryProcess, LocalStack


class Ours(LocalStack):
    """postbacks: worker and beat, a recorder where there is a history, a dashboard where there is a socket for it, as ``postbacks up`` starts them."""

    def __init__(
        self,
        broker: EmbeddedBroker,
        env: Mapping[str, str],
        folder: Path,
        *,
        workers: int = 1,
        history_url: str = "",
        web_socket: socket.socket | None = None,
    ) -> None:
        logs = folder / f"postbacks-{time.monotonic_ns()}"
        logs.mkdir()
        super().__init__(
            broker, env=env, log_dir=logs, workers=workers, history_url=history_url, web_socket=web_socket
        )
        self.broker = broker

    def hold(self) -> None:
        """Nothing is taken in without a beat, and nothing recorded without a recorder."""
        for process in (*self.beats, *self.recorders):
            os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.5)  # the last tick ends

    def let_go(self) -> None:
        """Go on; nothing is recorded yet."""
        for beat in self.beats:
            os.kill(beat.pid, signal.SIGCONT)

    def let_record(self) -> None:
        """Go on recording."""
        for recorder in self.recorders:
            os.kill(recorder.pid, signal.SIGCONT)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each kind of process."""
        kinds = {"worker": self.workers, "beat": self.beats, "recorder": self.recorders, "web": self.webs}
        pids = {
            kind: [process.pid for process in processes] for kind, processes in kinds.items() if processes
        }
        return {kind: cpu_s(some) for kind, some in (pids | {"broker": [self.broker.pid]}).items()}

    def abandon(self) -> None:
        """End at once, whatever is left to do."""
        for process in (*self.beats, *self.workers, *self.recorders):
            process.kill(group=True)


class Peer(CeleryProcess):
    """A Celery peer: one worker, prefork with two processes, everything else as Celery has it."""

    def __init__(self, broker: EmbeddedBroker, name: str, env: Mapping[str, str], folder: Path) -> None:
        super().__init__(
            "worker",
            env={**env, "PYTHONPATH": str(Path(__file__).parent / "peers")},
            app=name,
            log_path=folder / f"{name}.log",
            args=["--pool=prefork", "--concurrency=2", "--loglevel=WARNING", "--without-mingle"],
        )
        self.broker = broker
        self.queue = name

    def start(self) -> None:
        """Start it, and wait until its children are there and it consumes."""
        super().start()
        with self.broker.client() as client:
            until(lambda: any(_blocks(one) for one in client.client_list()), 60, "the peer's worker")

    def hold(self) -> None:
        """The children get nothing without their parent."""
        os.kill(self.pid, signal.SIGSTOP)

    def let_go(self) -> None:
        """Go on."""
        os.kill(self.pid, signal.SIGCONT)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each kind of process."""
        return {"worker": cpu_s([self.pid]), "broker": cpu_s([self.broker.pid])}


def _blocks(client: Mapping[str, str]) -> bool:
    return client["cmd"] == "brpop"


class Kannel:
    """Kannel's bearerbox and smsbox, fed by its own protocol for a fake SMSC."""

    def __init__(self, url: str, folder: Path) -> None:
        self._folder = folder
        self._url = url
        self._processes: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def present() -> bool:
        """Tell whether Kannel is installed (apt-get install kannel)."""
        return bool(_box("bearerbox") and _box("smsbox"))

    def __enter__(self) -> Self:
        ports = _free_ports(4)
        names = ("PORT_ADMIN", "PORT_BOX", "PORT_SMSC", "PORT_SEND")
        text = Path(__file__).with_name("peers").joinpath("kannel.conf").read_text()
        for name, port in zip(names, ports, strict=True):
            text = text.replace(name, str(port))
        conf = self._folder / "kannel.conf"
        conf.write_text(text.replace('"URL"', f'"{self._url}"'))
        self._smsc_port = ports[2]
        for box, port in (("bearerbox", ports[2]), ("smsbox", ports[3])):
            with (self._folder / f"{box}.log").open("ab") as log:
                self._processes.append(
                    subprocess.Popen([_box(box), "-v", "4", conf], stdout=log, stderr=log, cwd=self._folder)
                )
            until(lambda port=port: _listens(port), 20, box)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def send(self, texts: Iterable[str], pump: Callable[[], None] = lambda: None) -> None:
        """Hand messages over as its SMSC."""
        with socket.create_connection(("127.0.0.1", self._smsc_port)) as smsc:
            smsc.sendall("".join(f"15552312102 86717 text {text}\n" for text in texts).encode())
            pump()

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each process."""
        return {
            box: cpu_s([process.pid])
            for box, process in zip(("bearerbox", "smsbox"), self._processes, strict=True)
        }


def _box(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
