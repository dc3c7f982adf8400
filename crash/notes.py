"""Notes that outlive the deaths of the processes that write them; and calls that are made until they return."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from postbacks.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONGEST_PAUSE_S: Final = 2.0


class Notes:
    """File of lines that are there (in the kernel's hands) when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, text: str) -> None:
        """Append a text that ends a line."""
        os.write(self._file, text.encode())


def read_notes(path: Path) -> list[list[str]]:
    """Return the whole lines of a file of notes, split; one that was cut off by a death is no note."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


class Caller:
    """Caller of the broker: makes each call anew until it returns, and notes each that raised."""

    def __init__(self, raised: Path) -> None:
        self._raised = Notes(raised)

    def call(self, what: str, send: Callable[[], Any]) -> Any:
        """Call until it returns, with a growing pause."""
        pause_s = 0.1
        while True:
            try:
                return send()
            except BrokerError as error:
                self._raised.write(f"{what} {time.time():.3f} {type(error).__name__}\n")
                time.sleep(pause_s)
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
