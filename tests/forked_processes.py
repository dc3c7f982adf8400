"""Workers, beats, commands and programs that begin as forks of a process which has loaded all that they import.

Most of the CPU time of a short process is its imports: 1.3 s of a worker's start, 0.5 s of a command's. A fork has a
process id, memory and signals of its own, and is the child of the process that asked for it. What it lacks is the
start of Python itself; tests of that start processes outside ``forking``.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib
import marshal
import os
import runpy
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any
from unittest import mock

import forked_commands

READY = b"loaded"
#: Variables that no module reads while it is imported, beside those that begin with ``POSTBACKS_``.
_READ_LATER = {"HOME", "PATH", "PYTEST_CURRENT_TEST", "TMPDIR", "COLUMNS", "LINES", "USER", "C_FORCE_ROOT"}
#: Celery's modules of a worker and a beat. What they load of ``postbacks`` beyond what the commands do they load
#: themselves: some of it holds memory that a worker shares with its forks.
_MODULES = (
    "celery.bin.celery",
    "celery.apps.worker",
    "celery.apps.beat",
    "celery.concurrency.thread",
    "celery.concurrency.prefork",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.control",
    "celery.worker.strategy",
    "celery.fixups.django",
    "celery.loaders.app",
    "kombu.transport.virtual.exchange",
    "multiprocessing.sharedctypes",
    "pycurl",
)
#: Variables of the suite itself, whatever a test has set when the first process is started.
_ENVIRONMENT = dict(os.environ)
_PR_SET_CHILD_SUBREAPER = 36


def _program(argv: list[str]) -> tuple[str, str, list[str]] | None:
    """Return how a command line starts Python (``-m``, ``-c`` or a script), what it runs, and its ``sys.argv``."""
    scripts = {str(Path(sys.executable).with_name(name)) for name in ("celery", "postbacks")}
    match argv:
        case [python, "-m", module, *words] if python == sys.executable:
            return "-m", module, [module, *words]
        case [python, "-c", code, *words] if python == sys.executable:
            return "-c", code, ["-c", *words]
        case [script, *words] if script in scripts:
            return "script", script, [script, *words]
    return None


def _read_at_import(environment: dict[str, str]) -> dict[str, str]:
    """Return those variables that a module may read while it is imported."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("POSTBACKS_") and name not in _READ_LATER
    }


class _Server:
    """Process that has loaded everything, and forks itself for this one."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                env=_ENVIRONMENT,
            )
        atexit.register(self.close)
        assert self._connection.recv(100) == READY
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def fork(self, request: tuple[Any, ...], fds: list[int]) -> int:
        """Return the id of a new process, a child of this one; 0 where it cannot be started so."""
        # Its parent in the server ends at once, and whose parent ends is given to the nearest reaper above.
        self._prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(self._connection, [marshal.dumps(request)], fds)
            return int(self._connection.recv(100))
        finally:
            self._prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def close(self) -> None:
        """End the server; processes that it has started go on."""
        self._connection.close()
        self._process.wait()


_server: list[_Server] = []
_lock = threading.Lock()
_execute_child = Popen._execute_child  # type: ignore[attr-defined]


def _fork_child(self: Any, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any,
                startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int,
                errread: int, errwrite: int, restore_signals: Any, gid: Any, gids: Any, uid: Any, umask: int,
                start_new_session: bool, process_group: int) -> None:  # fmt: skip
    """Stand in for ``Popen._execute_child``: fork where the server can, else start the program as always."""
    program = (
        None if isinstance(args, (str, bytes, os.PathLike)) else _program([os.fsdecode(arg) for arg in args])
    )
    environment = dict(os.environ if env is None else env)
    plain = (executable, preexec_fn, gid, gids, uid) == (None,) * 5 and not shell and close_fds
    if program and plain and _read_at_import(environment) == _read_at_import(_ENVIRONMENT):
        fds = {fd: fd for fd in pass_fds}
        fds |= {number: number if fd == -1 else fd for number, fd in enumerate((p2cread, c2pwrite, errwrite))}
        request = (*program, os.fspath(cwd or Path.cwd()), environment, list(fds), umask, process_group, start_new_session)  # fmt: skip
        with _lock:
            if not _server:
                _server.append(_Server())
            self.pid = _server[0].fork(request, list(fds.values()))
        if self.pid:
            self._child_created = True
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
            return
    _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                   p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
                   start_new_session, process_group)  # fmt: skip


@contextmanager
def forking() -> Iterator[None]:
    """Start Python's modules and code, ``celery`` and ``postbacks`` as forks meanwhile, whoever starts them in this process.

    A process whose environment differs in what modules read while they are imported is started as always.
    """
    if sys.platform != "linux":
        yield
        return
    with mock.patch.object(Popen, "_execute_child", _fork_child):
        yield


def forking_module(module: str, *words: str) -> list[str]:
    """Return the command line that runs a module whose own processes begin as forks."""
    return [sys.executable, __file__, "forking", module, *words]


def _serve(connection: socket.socket) -> tuple[str, str]:
    """Fork for each request until the other end is gone; returns in the forks, with what each is to run."""
    server = os.getpid()
    while True:
        message, fds, *_ = socket.recv_fds(connection, 1 << 20, 64)
        if not message:
            os._exit(0)
        middle = os.fork()
        if middle:
            for fd in fds:
                os.close(fd)
            os.waitpid(middle, 0)
            continue
        middle = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() in {server, middle}:
            time.sleep(0.0002)
        start, program, argv, folder, environment, numbers, umask, group, new_session = marshal.loads(message)
        try:
            if new_session:
                os.setsid()
            if group >= 0:
                os.setpgid(0, group)
            if umask >= 0:
                os.umask(umask)
            forked_commands.take_on(argv, folder, environment, dict(zip(numbers, fds, strict=True)))
        except OSError:
            connection.send(b"0")
            os._exit(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        connection.send(str(os.getpid()).encode())
        connection.close()
        return start, program


def _run(start: str, program: str) -> None:
    """Run what the command line names."""
    sys.path.insert(0, str(Path(program).parent if start == "script" else Path.cwd()))
    if start == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    elif start == "script":
        runpy.run_path(program, run_name="__main__")
    else:
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), main.__dict__)


def _end(code: object) -> None:
    """End this process as Python does, without taking its modules apart, which would copy the server's memory."""
    if not isinstance(code, int | None):
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError):  # Python says what cannot be written
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit((code or 0) & 0xFF)


def _main() -> None:
    # Far from the numbers that the forks' own files have.
    connection = socket.socket(fileno=fcntl.fcntl(int(sys.argv[1]), fcntl.F_DUPFD_CLOEXEC, 100))
    os.close(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path.remove(str(Path(__file__).parent))
    forked_commands.load()
    for module in _MODULES:
        importlib.import_module(module)
    assert "pym-" not in Path("/proc/self/maps").read_text(), (
        "a module that is loaded shares its memory with all forks"
    )
    gc.collect()
    gc.freeze()
    connection.send(READY)
    start, program = _serve(connection)
    try:
        _run(start, program)
    except SystemExit as end:
        _end(end.code)
        raise
    else:
        _end(0)


if __name__ == "__main__":
    if sys.argv[1] == "forking":
        sys.path.insert(0, str(Path.cwd()))
        del sys.argv[:2]
        with forking():
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        _main()
