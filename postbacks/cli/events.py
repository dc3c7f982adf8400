"""Events from a file: one JSON object, objects one after the other (JSON lines), or one JSON array."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from postbacks.errors import BadInput, InvalidEvent

if TYPE_CHECKING:
    from typing import BinaryIO

    from postbacks.catalogue import Event

#: Invalid events that one error names; it counts the rest.
_MAX_NAMED = 5
_SPACE = re.compile(r"[ \t\r\n]*")


class _Value(NamedTuple):
    """A JSON value of the file, and the line or the number of the event that errors name it by."""

    where: str
    value: Any


def read_events(file: BinaryIO) -> list[Event]:
    """Read and check every event of a file.

    Raises:
        BadInput: the file is no JSON (names line and column), has no event, or has events that are not in the catalogue's
            form (names the events and, of each, every tag at fault).
    """
    from postbacks.catalogue import parse_event

    name = _name(file)
    events: list[Event] = []
    problems: list[str] = []
    values = _values(name, _text(name, file.read()))
    for where, value in values:
        try:
            _check_size(value)
            events.append(parse_event(value))
        except InvalidEvent as error:
            problems.append(f"{where}: {error}" if len(values) > 1 else str(error))
    if problems:
        more = len(problems) - _MAX_NAMED
        tail = f"; and {more} more of its {len(values)} events" if more > 0 else ""
        raise BadInput(f"{name}: {'; '.join(problems[:_MAX_NAMED])}{tail}.")
    return events


def _name(file: BinaryIO) -> str:
    name = getattr(file, "name", "-")
    return name if isinstance(name, str) and name not in {"-", "<stdin>"} else "standard input"


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        _refuse(name, before, len(before), f"byte 0x{data[error.start]:02x} is no UTF-8")


def _values(name: str, text: str) -> list[_Value]:
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique_names, parse_constant=_refuse_constant, parse_int=_integer
    )
    values: list[_Value] = []
    at = _skip_space(text, 0)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            _refuse(name, text, error.pos, error.msg)
        except (ValueError, RecursionError) as error:  # of the hooks below, or nested too deep
            reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            _refuse(name, text, at, reason)
        values.append(_Value(f"line {text.count(chr(10), 0, at) + 1}", value))
        at = _skip_space(text, end)
    if len(values) == 1 and isinstance(values[0].value, list):
        values = [_Value(f"event {number}", value) for number, value in enumerate(values[0].value, start=1)]
    if not values:
        raise BadInput(
            f"{name} holds no event: write one JSON object, JSON lines or a JSON array of objects."
        )
    return values


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _refuse(name: str, text: str, at: int, reason: str) -> NoReturn:
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    raise BadInput(f"{name} is no JSON: line {line}, column {column}: {reason}.")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated[:60]!r} stands twice in the object that begins here")
    return value


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # over 4,300 digits
        raise ValueError(f"a number in what begins here has {len(digits):,} digits") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _check_size(value: Any) -> None:
    # Judged before the tags: where the whole is too large, no single tag is at fault.
    from postbacks.catalogue import MAX_EVENT_BYTES

    size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if size > MAX_EVENT_BYTES:
        raise InvalidEvent(
            [("", f"its JSON takes {size} bytes; at most {MAX_EVENT_BYTES // 1024} KiB are allowed")]
        )
