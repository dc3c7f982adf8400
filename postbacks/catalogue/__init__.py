"""The catalogue: ``docs/catalogue.md`` as event types, one class a row.

The class of a row stands in the module of its group, and enters the catalogue when it is defined. ``postbacks.__all__``
names it as well, since type checkers read literal names only; a test fails where a name is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from postbacks.catalogue.base import MAX_EVENT_BYTES as MAX_EVENT_BYTES
from postbacks.catalogue.base import ORIGINS as ORIGINS
from postbacks.catalogue.base import Event as Event
from postbacks.catalogue.base import Tag as Tag
from postbacks.catalogue.base import _registry

# Imported by star, so that a new class needs no second line; names that begin with an underscore stay behind.
from postbacks.catalogue.general import *  # noqa: F403
from postbacks.catalogue.originated import *  # noqa: F403
from postbacks.catalogue.passes import *  # noqa: F403
from postbacks.catalogue.terminated import *  # noqa: F403
from postbacks.errors import InvalidEvent
from postbacks.printable import quoted

#: Event types by (ORIGIN, CODE).
EVENTS: Mapping[tuple[str, str], type[Event]] = MappingProxyType(_registry)


class Row(NamedTuple):
    """A row of the catalogue, for people to read.

    Attributes:
        origin: its ORIGIN.
        code: its CODE.
        group: ``general``, ``mo``, ``mt`` or ``pass``.
        name: name of its class.
        meaning: the catalogue's words for what happened.
        tags: names in document order; ``?`` marks an optional tag, ``+`` one or more.
    """

    origin: str
    code: str
    group: str
    name: str
    meaning: str
    tags: tuple[str, ...]


def table() -> list[Row]:
    """Return the whole catalogue, origin by origin."""
    origins = list(ORIGINS)
    return [
        Row(origin, code, event.group, event.__name__, event.meaning, tuple(map(str, event.tags)))
        for (origin, code), event in sorted(EVENTS.items(), key=lambda row: origins.index(row[0][0]))
    ]


def event_type(origin: object, code: object) -> type[Event]:
    """Return the class of a row.

    Raises:
        InvalidEvent: there is no such row; names the known origins, or the codes that the origin has.
    """
    if isinstance(origin, str) and isinstance(code, str) and (origin, code) in EVENTS:
        return EVENTS[origin, code]
    problems = []
    if not isinstance(origin, str) or origin not in ORIGINS:
        codes = list(dict.fromkeys(row_code for _, row_code in EVENTS))
        problems.append(("ORIGIN", _unknown(origin, list(ORIGINS))))
    else:
        codes = [row_code for row_origin, row_code in EVENTS if row_origin == origin]
    if code not in codes:
        problems.append(("CODE", _unknown(code, codes)))
    raise InvalidEvent(problems)


def _unknown(value: object, known: list[str]) -> str:
    problem = "required, but has no value" if value is None else f"unknown: {quoted(value)}"
    return f"{problem}; known: {', '.join(known)}"


def parse_event(event: Event | Mapping[str, Any]) -> Event:
    """Check an event, and return it as the catalogue's event type.

    A mapping names its row in ORIGIN and CODE, with its tags beside them; for a pass STATUSCODE serves as CODE
    (catalogue: Pass generation). An ``Event`` is checked again, as ``model_copy`` and ``model_construct`` check nothing.

    Raises:
        InvalidEvent: lists every tag at fault; no other error is raised.
    """
    if isinstance(event, Event):
        return type(event).model_validate(event.__dict__)
    if not isinstance(event, Mapping):
        raise InvalidEvent([("", f"an event is an Event or a mapping of tags, not {quoted(event)}")])
    tags = dict(event)
    origin = tags.pop("ORIGIN", None)
    code = tags.pop("CODE", None)
    if code is None and origin == "GENERATE_PASS":
        code = tags.get("STATUSCODE")
    return event_type(origin, code).model_validate(tags)
