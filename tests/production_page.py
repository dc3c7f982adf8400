"""The twelve lines of docs/production.md: what is typed where, and what it must say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "production.md").read_text()


@dataclass(frozen=True)
class Line:
    """A line of the checklist.

    Attributes:
        place: the service in whose container it is typed, or ``host``.
        says: words of the output.
        is_least: True where a number may be larger.
    """

    number: int
    place: str
    command: str
    says: tuple[str, ...]
    is_least: bool

    def is_met_by(self, output: str) -> bool:
        """Tell whether an output says what it must."""
        try:
            return all(self._is_said(word, output) for word in self.says)
        except ValueError:  # no number, or no JSON
            return False

    def _is_said(self, word: str, output: str) -> bool:
        field = re.fullmatch(r'"(\w+)": (\d+)', word)
        if self.is_least and field:
            return json.loads(output)[field[1]] >= int(field[2])
        if self.is_least and word.isdigit():
            return int(output) >= int(word)
        return word in output


def lines() -> list[Line]:
    """Read the checklist."""
    found = []
    for row in re.findall(r"(?m)^\| \d+ \|.*$", PAGE):
        number, typed, says, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1])
        place, command = re.match(r"(?:([^:]+): )?`([^`]+)`", typed).groups()
        service = re.fullmatch(r"in `(\w+)`", place or "in `worker`")
        found.append(
            Line(
                number=int(number),
                place=service[1] if service else "host",
                command=command.replace(r"\|", "|"),
                says=tuple(re.findall(r"`([^`]+)`", says)),
                is_least="at least" in says or "or more" in says,
            )
        )
    return found
