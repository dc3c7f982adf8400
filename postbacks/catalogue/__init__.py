"""Every postback that there is: ``docs/catalogue.md`` as event types.

Each row is one class, in the module of its group. Defining it enters it here. ``postbacks.__all__`` names it as
well, since type checkers read literal names only; a test says so where it is missing.
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

# By star, so that a new class needs no second line; what begins with an underscore stays behind.
from postbacks.catalogue.general import *  # noqa: F403
from postbacks.catalogue.originated import *  # noqa: F403
from postbacks.catalogue.passes import *  # noqa: F403
from postbacks.catalogue.problems import quoted
from postbacks.catalogue.terminated import *  # noqa: F403
from postbacks.errors import InvalidEvent

#: Every event type by its (ORIGIN, CODE).
EVENTS: Mapping[tuple[str, str], type[Event]] = MappingProxyType(_registry)


class Row(NamedTuple):
    """One row of the catalogue, for people to read."""

    origin: str
    code: str
    group: str
    name: str
    meaning: str
    #: In document order; ``?`` optional, ``+`` one or more.
    tags: tuple[str, ...]


def table() -> list[Row]:
    """Return the whole catalogue, origin by origin."""
    origins = list(ORIGINS)
    return [
        Row(origin, code, event.group, event.__name__, event.meaning, tuple(map(str, event.tags)))
        for (origin, code), event in sorted(EVENTS.items(), key=lambda row: origins.index(row[0][0]))
    ]


def event_type(origin: object, code: object) -> type[Event]:
    """Return the class of one row.

    Raises:
        InvalidEvent: names the known origins, or the codes that the origin has.
    """
    if isinstance(origin, str) and isinstance(code, str) and (origin, code) in EVENTS:
        return EVENTS[origin, code]
    problems = []
    if not isinstance(origin, str) or origin not in ORIGINS:
        codes = list(dict.fromkeys(known for _, known in EVENTS))
        problems.append(("ORIGIN", _unknown(origin, list(ORIGINS))))
    else:
        codes = [known for of, known in EVENTS if of == origin]
    if code not in codes:
        problems.append(("CODE", _unknown(code, codes)))
    raise InvalidEvent(problems)


def _unknown(given: object, known: list[str]) -> str:
    fault = "required, but has no value" if given is None else f"unknown: {quoted(given)}"
    return f"{fault}; known: {', '.join(known)}"


def parse_event(event: Event | Mapping[str, Any]) -> Event:
    """Return what the catalogue knows ``event`` as, checked.

    A mapping names its row in ORIGIN and CODE (catalogue: Pass generation: or in STATUSCODE alone) and has its tags
    beside them. An event is checked again: ``model_copy`` and ``model_construct`` check nothing.

    Raises:
        InvalidEvent: lists every tag at fault; nothing else is raised.
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
