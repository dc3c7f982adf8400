"""Events for tests: the catalogue's tables as data, the examples of every row, and hypothesis strategies.

Strategies are made from the event types, so a new row needs nothing here, unless it brings a form of value that no row
had before.
"""

from __future__ import annotations

import re
from datetime import timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from postbacks.catalogue import EVENTS, ORIGINS, Event, Tag, parse_event
from postbacks.catalogue import values as forms
from postbacks.cli.examples import example as example
from postbacks.cli.examples import examples as examples

if TYPE_CHECKING:
    from postbacks.catalogue.values import Form

#: The settings of property tests: the same cases every run, and nothing written into the working directory.
#: How slowly a busy machine draws examples says nothing of what is tested.
PROPERTY = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)
#: An event with a long text, for filling memory and disks.
LONG = {
    "ORIGIN": "SMS_MO",
    "CODE": "N211",
    "FROM": "15552312102",
    "TO": "86717",
    "TEXT": "x" * 8000,
    "RECEIVED": "2013-11-05T05:41:08-05",
    "TRANSACTIONID": "9812376",
}

CATALOGUE = (Path(__file__).parents[1] / "docs" / "catalogue.md").read_text()


def minimal_examples() -> dict[tuple[str, str], dict[str, Any]]:
    """Return one mapping for every row, with its required tags only."""
    return {row: example(event, required_only=True) for row, event in EVENTS.items()}


def form(annotation: object) -> Form:
    """Return the form of one of the types of ``postbacks.catalogue.values``."""
    return get_args(annotation)[1]


#: Any text at all: every code point, surrogates among them.
any_text = st.text(st.characters(exclude_categories=()), max_size=60)

_xml_text = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60).map(
    lambda text: text.replace("\ufffe", "").replace("\uffff", "")
)
_offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_moments = st.datetimes(timezones=_offsets)
_words = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12)
_urls = st.builds("{}://{}.example/{}".format, st.sampled_from(["http", "https", "HTTP"]), _words, _words)

_STRATEGIES: dict[Form, st.SearchStrategy[Any]] = {
    form(forms.PhoneNumber): st.from_regex(r"(0[1-9]|[1-9][0-9])[0-9]{1,13}", fullmatch=True),
    form(forms.SenderMask): st.text("abcXYZ019 &'+-._", max_size=11),
    form(forms.Timestamp): _moments | _moments.map(lambda moment: moment.isoformat()),
    form(forms.OpaqueId): _xml_text | st.integers(),
    form(forms.CarrierId): st.text("0123456789", min_size=1, max_size=8),
    form(forms.Email): st.builds("{}@{}.example".format, _words, _words),
    form(forms.FreeText): any_text,
    form(forms.Content): st.lists(_urls, min_size=1, max_size=3).map(lambda urls: {"FILE": urls}),
}


def _value(tag: Tag) -> st.SearchStrategy[Any]:
    return st.sampled_from(tag.form.values) if tag.form.values else _STRATEGIES[tag.form]


def mappings(event: type[Event]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate mappings of one row that the catalogue allows."""
    return st.fixed_dictionaries(
        {
            "ORIGIN": st.just(event.origin),
            "CODE": st.just(event.code),
            **{tag.name: _value(tag) for tag in event.tags if tag.required},
        },
        optional={tag.name: _value(tag) for tag in event.tags if not tag.required},
    )


def any_mapping() -> st.SearchStrategy[dict[str, Any]]:
    """Generate mappings of all rows."""
    return st.sampled_from(list(EVENTS.values())).flatmap(mappings)


def any_event() -> st.SearchStrategy[Event]:
    """Generate events of all rows."""
    return any_mapping().map(parse_event)


# -- docs/catalogue.md as data --------------------------------------------------------------------


def cells(line: str) -> list[str]:
    """Return the cells of one line of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


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
