"""Command blocks of pages, and a machine on which a reader types them.

The machine is a network namespace: its ports are free whatever the suite's other processes do, so that a block runs
as it stands. Its terminals have a fresh home, no POSTBACKS_ variable and the PATH of an active environment.
What stays is always a process of its own; short commands may be forks of one that has loaded them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import forked_commands
from helpers import WAIT_S, eventually

ROOT = Path(__file__).parents[1]
#: Pages of the repository, by their paths in it.
PAGES = [
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md", "deploy/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
#: Files of the checkout that stand in the directory in which its reader types.
CHECKOUT = (".env.example", "celeryconfig.py", "flowerconfig.py")

_FENCE = re.compile(r"\s*```(\w*)\s*$")


@dataclass(frozen=True)
class Block:
    """A block of a page: its text without the indentation, and the language that a fence names."""

    page: str
    language: str
    text: str

    @property
    def first_line(self) -> str:
        """The first line without its comment: what the block is known by."""
        return re.split(r"\s+#", self.text.splitlines()[0])[0]


def blocks_of(page: str, text: str) -> list[Block]:
    """Find the fenced and indented blocks of a page of Markdown, or of what a command prints."""
    found: list[Block] = []
    language, lines = None, []
    before = ""
    for line in [*text.splitlines(), "", "end"]:
        fence = _FENCE.match(line)
        if language == "indented" and line and not line.startswith("    "):
            found.append(Block(page, "", textwrap.dedent("\n".join(lines)).strip("\n")))
            language = None
        if language == "indented":
            lines.append(line)
        elif language is None and fence:
            language, lines = fence[1] or "text", []
        elif language is not None and fence:
            found.append(Block(page, language, textwrap.dedent("\n".join(lines))))
            language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("    ") and not before.strip():
            language, lines = "indented", [line]
        before = line
    assert language is None, f"a block of {page} has no end"
    return found


class Stayer:
    """A command that stays, in a terminal of its own; what it prints is kept."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def printed(self) -> str:
        """Return the text that its terminal shows."""
        return self._output.read_text(errors="replace")

    def wait_for(self, words: str, timeout_s: float = WAIT_S) -> None:
        """Wait until it has printed the words."""
        eventually(
            lambda: words in self.printed or self._process.poll() is not None,
            timeout_s,
            f"the words {words!r}",
        )
        assert words in self.printed, self.printed

    def stop(self, number: int = signal.SIGINT) -> int:
        """Press Ctrl-C, or send another signal, and return the exit code."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
        return self._process.wait(WAIT_S)


class Machine:
    """A reader's machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._home = folder / "home"
        self._home.mkdir()
        for name in CHECKOUT:
            (folder / name).write_bytes((ROOT / name).read_bytes())
        self.stayers: dict[str, Stayer] = {}
        as_root = os.geteuid() == 0
        self._network = subprocess.Popen(
            ["unshare", *([] if as_root else ["--map-root-user"]), "--net", "sh", "-c",
             "ip link set lo up && echo ready && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._network.stdout is not None
        assert self._network.stdout.readline() == b"ready\n", (
            "no namespaces here: run as root (CAP_SYS_ADMIN), or allow user namespaces"
        )
        user = [] if as_root else ["--user", "--preserve-credentials"]
        self._enter = ["nsenter", f"--target={self._network.pid}", "--net", *user]
        self._threads = ThreadPoolExecutor(4)
        self._begun: list[Future[None]] = []
        #: Variables that a text has told the reader to export, beyond what ``up`` prints.
        self.exported: dict[str, str] = {}
        self._forking: Path | None = None
        #: Page -> its Python so far, which runs in one process with that of other pages.
        self.python: dict[str, list[str]] = {}

    def _bash(self, text: str) -> list[str]:
        return [*self._enter, "bash", "-e", "-o", "pipefail", "-c", text]

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        return {"PATH": path, "HOME": str(self._home), "LANG": "C.UTF-8", **self.exported}

    def type(self, text: str, *, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Type lines into a new terminal, after the ``export`` lines that ``up`` has printed."""
        up = self.stayers.get("postbacks up")
        exports = re.findall(r"^\s*(export .*)$", up.printed, re.MULTILINE) if up else []
        env = self._environment()
        if self._forking:
            env["PATH"] = f"{self._forking}:{env['PATH']}"
        return subprocess.run(
            self._bash("\n".join([*exports, text])), env=env, cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def start(self, text: str, *, exports: str = "") -> Stayer:
        """Type a command that stays into a terminal of its own; another one of its name ends first."""
        name = " ".join(text.split()[:2])
        if name in self.stayers:
            assert self.stayers.pop(name).stop() == 0
        output = self.folder / f"terminal-{len(list(self.folder.glob('terminal-*')))}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                self._bash("\n".join(filter(None, [exports, text]))), env=self._environment(), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        self.stayers[name] = Stayer(process, output)
        return self.stayers[name]

    def fork_commands(self) -> None:
        """From now on run each ``postbacks`` that is typed in a fork of a process that has loaded the commands."""
        self._forking = self.folder / "forking"
        self._forking.mkdir()
        forked_commands.write_client(self._forking)
        self.start(f"python {forked_commands.__file__}").wait_for(forked_commands.READY)

    def begin(self, call: Callable[..., None], *arguments: object) -> None:
        """Begin a call whose end ``join`` waits for: the machine has several terminals."""
        self._begun.append(self._threads.submit(call, *arguments))

    def join(self) -> None:
        """Wait for what was begun; raises what it raised."""
        while self._begun:
            self._begun.pop(0).result()

    def close(self) -> None:
        """End all that stays, and the network."""
        self._threads.shutdown(cancel_futures=True)
        for stayer in reversed(self.stayers.values()):
            stayer.stop()
        self._network.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def examples_of(command: object, words: str = "postbacks") -> Iterator[Block]:
    """Each example line of a command's help and of those below it, as a block of its own."""
    for line in command.examples:  # type: ignore[attr-defined]
        yield Block(f"{words} --help", "", line)
    for name, below in getattr(command, "commands", {}).items():
        yield from examples_of(below, f"{words} {name}")
