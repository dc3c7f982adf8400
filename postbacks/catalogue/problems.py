"""Problems of an event by tag, in plain words instead of pydantic's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from postbacks.printable import MAX_QUOTED, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic_core import ErrorDetails

    from postbacks.catalogue.base import Tag


def problems_of(
    error: ValidationError, tags: Sequence[Tag], values: Any, validate: Callable[[Any], object]
) -> list[tuple[str, str]]:
    """Return ``(tag, why)`` of every tag at fault: the event's tags in document order, then unknown ones."""
    if not isinstance(values, Mapping):
        return [("", f"an event is made of tags, not of {quoted(values)}")]
    by_key = {key: tag for tag in tags for key in (tag.name, tag.field)}
    unknown_keys = [key for key in values if key not in by_key]
    details = error.errors(include_url=False, include_context=False)
    if not all(detail["loc"] for detail in details):
        # A key that is no Unicode text makes pydantic give up at once, so the other tags are checked without it.
        details = _details_without(unknown_keys, values, validate)
    why: dict[str, str] = {}
    for detail in details:
        tag = by_key.get(str(detail["loc"][0]))
        if tag is not None:
            why.setdefault(tag.name, _why(tag, detail))
    # The first unknown tag alone lists the known ones: there may be a hundred thousand.
    first = f"unknown tag; known: {', '.join(tag.name for tag in tags)}"
    return [
        *((tag.name, why[tag.name]) for tag in tags if tag.name in why),
        *((_key_text(key), "unknown tag" if number else first) for number, key in enumerate(unknown_keys)),
    ]


def _details_without(
    unknown_keys: list[Any], values: Mapping[Any, Any], validate: Callable[[Any], object]
) -> list[ErrorDetails]:
    known_keys = values.keys() - set(unknown_keys)
    try:
        validate({key: values[key] for key in known_keys})
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False)
    return []


def _why(tag: Tag, detail: ErrorDetails) -> str:
    value, location = detail["input"], detail["loc"]
    if detail["type"] == "extra_forbidden":
        return f"given twice, as {tag.name} and as {tag.field}"
    if detail["type"] == "missing" or (value is None and len(location) == 1):
        return "required, but has no value"
    if tag.form.item is not None and len(location) > 1:
        name, form = tag.form.item
        return f"{name} {int(location[1]) + 1} must be {form.words}, not {quoted(value)}"
    return f"must be {tag.form.words}{tag.form.in_python}, not {quoted(value)}"


def _key_text(key: object) -> str:
    return key if isinstance(key, str) and len(key) <= MAX_QUOTED and key.isprintable() else quoted(key)
