"""Server that runs ``postbacks`` in forks of itself: commands begin at once, as all that they import is loaded.

Most of the CPU time of a short command is its imports. A client, which stands as ``postbacks`` in the PATH, hands over
its arguments, directory, environment and descriptors. A fork takes all of them on and calls what the installed script
calls, and the client ends with its exit code.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import marshal
import os
import pkgutil
import signal
import socket
import sys
from pathlib import Path

#: In no file system: it exists in the machine's own network alone.
ADDRESS = "\0postbacks"
READY = "Commands are loaded."
#: Rooms of the worker, the only process that loads them.
_NOT_LOADED = ("postbacks.celery", "postbacks.worker", "postbacks.delivery", "postbacks.flower_events")

_CLIENT = f"""\
#!{sys.executable} -IS
import _socket, array, marshal, os, sys
fds = [fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{{fd}}")]
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
server.connect({ADDRESS!r})
rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))
server.sendmsg([marshal.dumps((sys.argv, os.getcwd(), dict(os.environ), fds))], [rights])
os._exit(server.recv(1)[0])
"""


def write_client(folder: Path) -> None:
    """Write the client into a folder of the PATH."""
    client = folder / "postbacks"
    client.write_text(_CLIENT)
    client.chmod(0o755)


def load() -> None:
    """Import what commands import; none of it reads the environment before it is used."""
    import postbacks

    for module in pkgutil.walk_packages(postbacks.__path__, "postbacks."):
        if not module.name.startswith(_NOT_LOADED) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("kombu.transport.redis")
    gc.freeze()


def take_on(argv: list[str], folder: str, environment: dict[str, str], fds: dict[int, int]) -> None:
    """Become the client's process: its arguments, directory, environment, and each of its descriptors by its number."""
    high = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for number, fd in fds.items()}
    for fd in fds.values():
        os.close(fd)
    for number, fd in high.items():
        os.dup2(fd, number)
        os.close(fd)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)  # knows whether it can seek, which the new one may not
        new = open(fd, old.mode, 1 if fd == 2 else -1, old.encoding, old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, new)
    sys.argv = argv
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def answer(connection: socket.socket) -> None:
    """Run one command in a fork, wait for its end and tell the exit code; returns in the fork, which is to run it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, fds, *_ = socket.recv_fds(connection, 1 << 20, 64)
    command = os.fork()
    if command:
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(command, 0)
        connection.send(bytes([os.waitstatus_to_exitcode(status) & 255]))
        os._exit(0)
    connection.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    argv, folder, environment, numbers = marshal.loads(message)
    take_on(argv, folder, environment, dict(zip(numbers, fds, strict=True)))


def serve() -> None:
    """Answer each client in a fork; returns in the forks that are to run a command."""
    load()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(ADDRESS)
        listening.listen(64)
        print(READY, flush=True)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                break
            connection.close()
    answer(connection)


if __name__ == "__main__":
    serve()
    from postbacks.cli import main

    sys.exit(main())
