"""Faults of an event in plain words, by tag, none of pydantic's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import Repr
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic_core import ErrorDetails

    from postbacks.catalogue.base import Tag

#: Characters of a value (or of an unknown tag) that an error quotes.
MAX_QUOTED = 60

_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = MAX_QUOTED


def quoted(value: object) -> str:
    """Return ``value`` as errors show it: Python's repr, at most ``MAX_QUOTED`` characters."""
    try:
        text = _repr.repr(value)
    except Exception:  # noqa: BLE001 - a value that cannot be shown (an int too long for str) must not hide the fault
        return f"<{type(value).__name__}>"
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 1]}…"


def faults_of(
    error: ValidationError, tags: Sequence[Tag], given: Any, validate: Callable[[Any], object]
) -> list[tuple[str, str]]:
    """Return ``(tag, why)`` for every tag at fault: those of the event in document order, then unknown ones."""
    if not isinstance(given, Mapping):
        return [("", f"an event is made of tags, not of {quoted(given)}")]
    by_key = {key: tag for tag in tags for key in (tag.name, tag.field)}
    strangers = [key for key in given if key not in by_key]
    details = error.errors(include_url=False, include_context=False)
    if not all(detail["loc"] for detail in details):
        # A key that is no Unicode text makes pydantic give up at once; look at the others without it.
        details = _details_without(strangers, given, validate)
    why: dict[str, str] = {}
    for detail in details:
        tag = by_key.get(str(detail["loc"][0]))
        if tag is not None:
            why.setdefault(tag.name, _why(tag, detail))
    # The known tags once are help enough, however many are unknown.
    help_once = f"unknown tag; known: {', '.join(tag.name for tag in tags)}"
    return [
        *((tag.name, why[tag.name]) for tag in tags if tag.name in why),
        *((_shown(key), "unknown tag" if number else help_once) for number, key in enumerate(strangers)),
    ]


def _details_without(
    strangers: list[Any], given: Mapping[Any, Any], validate: Callable[[Any], object]
) -> list[ErrorDetails]:
    known = given.keys() - set(strangers)
    try:
        validate({key: given[key] for key in known})
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False)
    return []


def _why(tag: Tag, detail: ErrorDetails) -> str:
    given, where = detail["input"], detail["loc"]
    if detail["type"] == "extra_forbidden":
        return f"given twice, as {tag.name} and as {tag.field}"
    if detail["type"] == "missing" or (given is None and len(where) == 1):
        return "required, but has no value"
    if tag.form.item is not None and len(where) > 1:
        name, form = tag.form.item
        return f"{name} {int(where[1]) + 1} must be {form.words}, not {quoted(given)}"
    return f"must be {tag.form.words}{tag.form.in_python}, not {quoted(given)}"


def _shown(key: object) -> str:
    return key if isinstance(key, str) and len(key) <= MAX_QUOTED and key.isprintable() else quoted(key)
