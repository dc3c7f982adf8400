"""Table of the answers to the hostile requests, in examples/receivers/README.md."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pages import cells
from receiver_process import FOLDER, LANGUAGES

#: Set by `make receivers`: then the table is written.
WRITTEN = "RECEIVERS_TABLE"
PAGE = FOLDER / "README.md"
_HEAD = "| hostile request |"


def write_column(language: str, answers: Mapping[str, str]) -> None:
    """Write a language's answers, by the name of the request, where `make receivers` asks for it."""
    if WRITTEN not in os.environ:
        return
    known = read_table()
    rows = {
        name: known.get(name, dict.fromkeys(LANGUAGES, "")) | {language: answer}
        for name, answer in answers.items()
    }
    before, after = _around()
    lines = [f"| {name} | {' | '.join(row[one] for one in LANGUAGES)} |" for name, row in rows.items()]
    PAGE.write_text("\n".join([*before, *lines, "", *after]) + "\n")


def read_table() -> dict[str, dict[str, str]]:
    """Return the answers of the page by the name of the request and the language."""
    before, after = _around()
    lines = PAGE.read_text().splitlines()[len(before) : -len(after) - 1]
    return {name: dict(zip(LANGUAGES, row, strict=True)) for name, *row in map(cells, lines)}


def _around() -> tuple[list[str], list[str]]:
    """Lines up to the head of the table, and those behind it."""
    lines = PAGE.read_text().splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith(_HEAD)) + 2
    end = lines.index("", head)
    return lines[:head], lines[end + 1 :]
