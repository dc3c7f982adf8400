"""The receiver as a process: built from receiver.c, asked by lines."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Self

from benchmarks.machine import cpu_s
from benchmarks.scenario import until

_NUMBER = struct.Struct("IIqq")


@cache
def _binary() -> str:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise SystemExit("The receiver of the benchmark is in C and wants a compiler: apt-get install gcc")
    path = Path(tempfile.mkdtemp(prefix="postbacks-bench-")) / "receiver"
    subprocess.run([compiler, "-O2", "-o", path, Path(__file__).with_name("receiver.c")], check=True)
    return str(path)


class Receiver:
    """Takes POSTs on every address of 127.0.0.0/8, checks and counts them.

    Args:
        highest: numbers of postbacks are below it.
        delay_ms: that the path /delay waits before it answers.
    """

    def __init__(self, highest: int, *, delay_ms: int = 0) -> None:
        self._highest = highest
        self._process = subprocess.Popen(
            [_binary(), str(highest), str(delay_ms)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def url(self, account: int, path: str = "") -> str:
        """The URL of an account: a host of its own, as customers have."""
        return f"http://127.1.{account // 250}.{account % 250 + 1}:{self.port}/{path}"

    def ask(self, line: str) -> str:
        """Send a command, return its answer."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def stats(self) -> dict[str, Any]:
        """Counts so far."""
        return json.loads(self.ask("stats"))

    def wait_for(self, distinct: int, timeout_s: float) -> dict[str, Any]:
        """Wait until so many different postbacks have come."""
        until(lambda: self.stats()["distinct"] >= distinct, timeout_s, f"{distinct} postbacks")
        return self.stats()

    def arrivals(self) -> list[tuple[int, float, float]]:
        """Count, first and last arrival (seconds of time.monotonic) of every number."""
        with tempfile.NamedTemporaryFile() as file:
            self.ask(f"dump {file.name}")
            return [
                (count, first / 1e9, last / 1e9)
                for count, _, first, last in _NUMBER.iter_unpack(Path(file.name).read_bytes())
            ]

    def wait_for_numbers(self, numbers: Iterable[int], timeout_s: float) -> list[tuple[int, float, float]]:
        """Wait until all of these have come, at most so long; return the arrivals."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            arrivals = self.arrivals()
            if all(arrivals[number][0] for number in numbers) or time.monotonic() > deadline_s:
                return arrivals
            time.sleep(0.1)

    def check(self, numbers: range, *, at_most: int = 1) -> None:
        """Every one of these has come, sound, and none more often. AssertionError: which has not."""
        stats = self.stats()
        assert stats["unsound"] == 0, f"{stats['unsound']} POSTs were not sound"
        arrivals = self.arrivals()
        missing = [number for number in numbers if not arrivals[number][0]]
        assert not missing, f"{len(missing)} never came, the first of them {missing[0]}"
        often = [number for number in numbers if arrivals[number][0] > at_most]
        assert not often, f"{len(often)} came more than {at_most} times, the first of them {often[0]}"

    def cpu_s(self) -> float:
        """Return its own CPU, counted to no contender."""
        return cpu_s([self._process.pid])
