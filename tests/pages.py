"""Tables of the documentation's pages as data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from postbacks.catalogue import ORIGINS

CATALOGUE = (Path(__file__).parents[1] / "docs" / "catalogue.md").read_text()


def cells(line: str) -> list[str]:
    """Return the cells of one line of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def anchors(page: str) -> set[str]:
    """Return the anchors of a page: its headings as GitHub makes them, and those written as HTML."""
    headings = re.findall(r"(?m)^#+ +(.+?) *$", page)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"""<a (?:id|name)=["']([^"']+)""", page))


def catalogue_rows() -> dict[tuple[str, str], dict[str, Any]]:
    """Read the tables of Codes; "as N101" and its like are replaced by what they stand for."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    header: list[str] = []
    for line in CATALOGUE.split("## Codes")[1].split("## Values")[0].splitlines():
        if line.startswith("| ORIGIN"):
            header = cells(line)
        elif line.startswith("|") and not line.startswith("| ---"):
            row = dict(zip(header, cells(line), strict=True))
            for number, code in enumerate(row["CODE"].split(", ")):
                rows[row["ORIGIN"], code] = {
                    "meaning": row["meaning"],
                    "status": _status(rows, row, number),
                    "tags": _tags(rows, row, number),
                }
    return rows


def _referred(rows: dict[tuple[str, str], Any], origin: str, cell: str, number: int) -> Any:
    """Find the row that "as N101, N102", "as MMS_MT N202" or "as E202 of SMS_MT" means."""
    codes = re.findall(r"\b[NE]\d{3}\b", cell)
    other = next((word for word in re.findall(r"\w+", cell) if word in ORIGINS), origin)
    return rows[other, codes[number] if len(codes) > 1 else codes[0]]


def _status(rows: dict[tuple[str, str], Any], row: dict[str, str], number: int) -> set[str]:
    cell = row.get("STATUS values", "")
    if cell.startswith("as "):
        return _referred(rows, row["ORIGIN"], cell, number)["status"]
    return set(re.findall(r"`([^`]+)`", cell))


def _tags(rows: dict[tuple[str, str], Any], row: dict[str, str], number: int) -> list[str]:
    reference, _, added = row["tags"].partition(", then ")
    if not reference.startswith("as "):
        return row["tags"].split(", ")
    referred = _referred(rows, row["ORIGIN"], reference, number)["tags"]
    return [*referred, *added.split(", ")] if added else referred
