"""Events from a file: one JSON object, objects one after the other (JSON lines), or one JSON array."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from postbacks.errors import InvalidEvent, PostbacksError

if TYPE_CHECKING:
    from typing import BinaryIO

    from postbacks.catalogue import Event

#: Events at fault that one error names; the rest it counts.
_NAMED_FAULTS = 5
_SPACE = re.compile(r"[ \t\r\n]*")


class BadInput(PostbacksError):
    """Raised when a file holds no events that can be read."""


class _Found(NamedTuple):
    where: str
    value: Any


def read_events(file: BinaryIO) -> list[Event]:
    """Read and check every event of a file.

    Raises:
        BadInput: it is no JSON (line and column named), or no event is in it.
        InvalidEvent: names the events at fault and, of each, every tag.
    """
    from postbacks.catalogue import parse_event

    name = _name(file)
    events: list[Event] = []
    faults: list[str] = []
    found = _values(name, _text(name, file.read()))
    for where, value in found:
        try:
            _check_size(value)
            events.append(parse_event(value))
        except InvalidEvent as error:
            faults.append(f"{where}: {error}" if len(found) > 1 else str(error))
    if faults:
        more = len(faults) - _NAMED_FAULTS
        tail = f"; and {more} more of its {len(found)} events" if more > 0 else ""
        raise BadInput(f"{name}: {'; '.join(faults[:_NAMED_FAULTS])}{tail}.")
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


def _values(name: str, text: str) -> list[_Found]:
    decoder = json.JSONDecoder(object_pairs_hook=_once_each, parse_constant=_no_constant, parse_int=_whole)
    found: list[_Found] = []
    at = _skip_space(text, 0)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            _refuse(name, text, error.pos, error.msg)
        except (ValueError, RecursionError) as error:  # the hooks', an int of 5,000 digits, too deep
            reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            _refuse(name, text, at, reason)
        found.append(_Found(f"line {text.count(chr(10), 0, at) + 1}", value))
        at = _skip_space(text, end)
    if len(found) == 1 and isinstance(found[0].value, list):
        found = [_Found(f"event {number}", value) for number, value in enumerate(found[0].value, start=1)]
    if not found:
        raise BadInput(
            f"{name} holds no event: write one JSON object, JSON lines or a JSON array of objects."
        )
    return found


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _refuse(name: str, text: str, at: int, reason: str) -> NoReturn:
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    raise BadInput(f"{name} is no JSON: line {line}, column {column}: {reason}.")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:60]!r} stands twice in the object that begins here")
    return value


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # over 4,300 digits
        raise ValueError(f"a number in what begins here has {len(digits):,} digits") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _check_size(value: Any) -> None:
    # Before the tags are looked at: what is too large as a whole has no one tag at fault.
    from postbacks.catalogue import MAX_EVENT_BYTES

    size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if size > MAX_EVENT_BYTES:
        raise InvalidEvent(
            [("", f"its JSON takes {size} bytes; at most {MAX_EVENT_BYTES // 1024} KiB are allowed")]
        )
