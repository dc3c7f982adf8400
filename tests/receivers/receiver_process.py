"""Receivers of examples/receivers as processes: whether their language is here, how they start, what they print."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import eventually

FOLDER = Path(__file__).parents[2] / "examples" / "receivers"
LANGUAGES = ("python", "node", "php", "java", "go")
#: Set by `make receivers`, which installs the languages: then a missing one is a failure.
REQUIRED = "RECEIVERS_REQUIRED"
#: Extensions of PHP that the receiver uses.
_PHP_HAS = 'exit(PHP_VERSION_ID >= 80100 && !array_diff(["pdo_sqlite", "xmlreader"], get_loaded_extensions()) ? 0 : 1);'


class ReceiverProcess:
    """A running receiver, or one that runs again on the same data."""

    def __init__(self, command: list[str], secret: str, data: Path) -> None:
        self._command = command
        self._env = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
        } | {"WEBHOOK_SECRET": secret, "DATA_DIR": str(data), "PORT": "0"}
        self.data = data
        self._log = data.parent / "receiver.log"
        self._run_count = 0

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._run_count += 1
        self._output = self.data.parent / f"output-{self._run_count}"
        with self._output.open("wb") as output, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        eventually(lambda: self._listening() or not self.alive, what="the start of a receiver")
        assert self.alive, self.log
        self.port = int(self._listening()[1])

    @property
    def database(self) -> Path:
        """Database of those receivers that have one."""
        return self.data / "postbacks.db"

    def file(self, postback_id: str) -> Path:
        """File of a postback, of those receivers that have no database."""
        return self.data / "postbacks" / hashlib.sha256(postback_id.encode()).hexdigest()

    def kill(self) -> None:
        """End it, and what it has started, as a loss of power would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(90)

    @property
    def alive(self) -> bool:
        """True while the process that was started runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """Text of all its error outputs."""
        return self._log.read_text(errors="replace")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The postbacks that it has printed since it was started last."""
        _, *lines, _ = self._output.read_text().split("\n")
        return [json.loads(line) for line in lines]

    def state(self) -> dict[str, tuple[int, str, str]]:
        """Sequence, code and id by subject, as its command ``state`` prints them."""
        printed = subprocess.run(
            [*self._command, "state"], env=self._env, check=True, capture_output=True, timeout=60
        ).stdout
        states = [json.loads(line) for line in printed.decode().split("\n")[:-1]]
        return {state["subject"]: (state["sequence"], state["code"], state["id"]) for state in states}

    def _listening(self) -> re.Match[str] | None:
        return re.match(r"listening on http://127\.0\.0\.1:(\d+)/\n", self._output.read_text())


@contextmanager
def running_receiver(language: str, secret: str, folder: Path) -> Iterator[ReceiverProcess]:
    """Run the receiver of a language on data of its own; skip the test where the language is not here."""
    reason = missing(language)
    if reason:
        assert REQUIRED not in os.environ, reason
        pytest.skip(reason)
    with _run(_command(language, folder), secret, folder) as process:
        yield process


@contextmanager
def _run(command: list[str], secret: str, folder: Path) -> Iterator[ReceiverProcess]:
    process = ReceiverProcess(command, secret, folder / "data")
    process.start()
    try:
        yield process
    except BaseException:
        print(f"--- {command}\n{process.log[-6000:]}")
        raise
    finally:
        process.kill()


def running_changed(source: str, secret: str, folder: Path) -> AbstractContextManager[ReceiverProcess]:
    """Run a changed receiver in Python, or in PHP where the source is PHP's."""
    is_php = source.startswith("<?php")
    path = folder / ("changed.php" if is_php else "changed.py")
    path.write_text(source)
    return _run(["php" if is_php else sys.executable, str(path)], secret, folder)


def missing(language: str) -> str:
    """Say why a language's receiver cannot run here; nothing where it can."""
    tool = {"python": sys.executable, "java": "javac"}.get(language, language)
    if shutil.which(tool) is None:
        return f"there is no {tool} here; make receivers installs it"
    if language == "php" and subprocess.run(["php", "-r", _PHP_HAS], check=False).returncode:
        return "php is older than 8.1 here, or has no pdo_sqlite or xmlreader; make receivers installs them"
    if language in {"node", "java"}:
        version = subprocess.run([language, "--version"], check=True, capture_output=True, text=True).stdout
        major, needed = int(re.search(r"\d+", version)[0]), {"node": 18, "java": 17}[language]
        if major < needed:
            return f"{language} is older than {needed} here"
    return ""


@functools.cache
def _compiled_java() -> str:
    """Compile the receiver once a process, which takes two seconds of CPU; returns the folder of its classes."""
    folder = tempfile.mkdtemp(prefix="postbacks-java-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(["javac", "-d", folder, str(FOLDER / "java" / "Receiver.java")], check=True, timeout=300)
    return folder


def _command(language: str, folder: Path) -> list[str]:
    here = FOLDER / language
    if language == "go":
        program = folder / "receiver"
        subprocess.run(
            ["go", "build", "-buildvcs=false", "-o", str(program), "."],
            cwd=here, check=True, env=os.environ | {"GOFLAGS": "", "GOTOOLCHAIN": "local"}, timeout=300,
        )  # fmt: skip
        return [str(program)]
    if language == "java" and REQUIRED not in os.environ:
        # As its page says, each start compiles it; compiled once, all starts take a tenth of a second.
        return ["java", "-cp", _compiled_java(), "Receiver"]
    return {
        "python": [sys.executable, "-W", "error", str(here / "receiver.py")],
        "node": ["node", str(here / "receiver.js")],
        "php": ["php", str(here / "receiver.php")],
        "java": ["java", str(here / "Receiver.java")],
    }[language]
