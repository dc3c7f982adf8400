"""A message of Celery's queue, read as a postback: protocol 1 or 2 in kombu's Redis envelope.

kombu keeps a JSON object a message: body (base64 JSON), content-type, content-encoding, headers and
properties. In Celery's protocol 2 the headers carry task, id, eta and expires, and the body is
``[args, kwargs, embed]``; in protocol 1 the body is one object that carries all of it. Anything
may stand in a queue, so nothing is believed: a message that cannot be read becomes ``Unreadable`` with its
reason, and is kept among the dead.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, NamedTuple

from kombu.utils import json as kombu_json
from pydantic_core import from_json

from postbacks.catalogue import MAX_EVENT_BYTES
from postbacks.names import is_id
from postbacks.printable import quoted
from postbacks.queue.protocol import DECOMPRESSORS, MAPS, SCHEMA, SCHEMA_HEADER, TASK_NAME

#: Beginning of the reason of a message that only a newer version can read; `postbacks resend` reads it again.
NEWER: Final = "a newer version of postbacks is needed"

#: Beginning of the reason of a message of one of ``MAPS``; it is kept whole, since it holds many events.
MAPPED: Final = "send_postback cannot be mapped in a worker"

_NO_PROTOCOL: Final = "the message is of neither Celery's protocol 2, whose headers name a task, nor protocol 1, whose body does"

#: Largest body that can hold an event of the catalogue, as JSON may escape each character as six bytes. A compressed
#: body is not unpacked further.
MAX_BODY_BYTES: Final = 8 * MAX_EVENT_BYTES

#: Last second of the year 9999 in UTC, the last that ISO 8601 can write with four digits.
LATEST_S: Final = 253_402_300_799

#: Patterns of a message's id, which find it without reading the message: in the headers of protocol 2, or in the body
#: of protocol 1, which stands in the message as base64 or as JSON within JSON.
_ID_HEADER: Final = re.compile(rb'"id": ?"([\x21\x23-\x5b\x5d-\x7e]{1,255})"')
_ID_WITHIN: Final = re.compile(rb'\\"id\\": ?\\"([\x21\x23-\x5b\x5d-\x7e]{1,255})\\"')
_BASE64_BODY: Final = re.compile(rb'"body": ?"([A-Za-z0-9+/]{4,})=*"')
#: Errors of unpacking and reading, those of kombu's own types among them (a bad decimal, a uuid without its parts).
_BODY_ERRORS: Final = (
    ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError, zlib.error, OSError, EOFError,
)  # fmt: skip
#: Parts of a message that tell Celery what to do after a task; a postback cannot have them.
_AFTERWARDS: Final = ("callbacks", "errbacks", "chain", "chord")


class Message(NamedTuple):
    """A message for ``send_postback``, its arguments not yet checked.

    Attributes:
        id: the postback's id (Celery's task id).
        args: positional arguments.
        kwargs: keyword arguments.
        eta: when the caller wants it sent, or None.
        expires: when the caller no longer wants it sent, or None.
    """

    id: str
    args: list[Any]
    kwargs: dict[str, Any]
    eta: datetime | None
    expires: datetime | None


class Unreadable(Exception):
    """Raised when a message is no postback; carries the reason, and the message's id or a new one."""

    def __init__(self, reason: str, message_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message_id = message_id or str(uuid.uuid4())


def find_id(raw: bytes) -> str | None:
    """Find a message's id without reading the message, which may kill the process; None where it has none."""
    match = _ID_HEADER.search(raw) or _ID_WITHIN.search(raw)
    if match is None and (body := _BASE64_BODY.search(raw)):
        text = body[1]
        match = _ID_HEADER.search(base64.b64decode(text[: len(text) // 4 * 4]))
    return match[1].decode() if match else None


def decode(raw: bytes) -> Message:
    """Read one message of Celery's protocol 1 or 2.

    Raises:
        Unreadable: it is no JSON, of another protocol or task, or its body cannot be unpacked.
    """
    try:
        envelope = _read_json(raw)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the message is no JSON: {error}", find_id(raw)) from None
    if not isinstance(envelope, dict):
        raise Unreadable("the message is no JSON object")
    headers = envelope.get("headers")
    if not isinstance(headers, dict):
        headers = {}
    if "task" not in headers:
        return _decode_protocol_1(raw, envelope, headers)
    message_id = _check_task(headers, headers)
    try:
        args, kwargs = _arguments(_content(envelope, headers))
        eta, expires = _time(headers.get("eta")), _time(headers.get("expires"))
    except _BODY_ERRORS as error:
        raise Unreadable(f"the message's body cannot be read: {error}", message_id) from None
    return Message(message_id, args, kwargs, eta, expires)


def _decode_protocol_1(raw: bytes, envelope: Mapping[str, Any], headers: Mapping[str, Any]) -> Message:
    """Read a message whose body is one object: id, task, arguments and times.

    As gocelery, node-celery and Celery itself with ``task_protocol=1`` write it. Its times are in UTC where
    they have no zone, unless it says otherwise (celery 5.7, ``celery/worker/strategy.py``).
    """
    try:
        body = _content(envelope, headers)
    except _BODY_ERRORS as error:
        raise Unreadable(f"{_NO_PROTOCOL}: {error}", find_id(raw)) from None
    if not isinstance(body, dict):
        raise Unreadable(_NO_PROTOCOL, find_id(raw))
    if "task" not in body:
        raise Unreadable(_NO_PROTOCOL, body.get("id") if is_id(body.get("id")) else None)
    message_id = _check_task(body, headers)
    zone = UTC if body.get("utc", True) else None
    try:
        arguments = _args_and_kwargs(_or_empty(body.get("args"), []), _or_empty(body.get("kwargs"), {}))
        _check_afterwards(body)
        eta, expires = _time(body.get("eta"), zone), _time(body.get("expires"), zone)
    except _BODY_ERRORS as error:
        raise Unreadable(f"the message's body cannot be read: {error}", message_id) from None
    return Message(message_id, *arguments, eta, expires)


def _or_empty(value: object, empty: object) -> object:
    """Replace None, which Go writes for what is empty."""
    return empty if value is None else value


def _check_task(fields: Mapping[str, Any], headers: Mapping[str, Any]) -> str:
    """Check the id and the task that a message names, and its schema; returns the id."""
    message_id = fields.get("id")
    if not isinstance(message_id, str) or not is_id(message_id):
        raise Unreadable("the message has no usable id")
    task = fields["task"]
    if task != TASK_NAME:
        reason = f"the message is for the task {quoted(task)}"
        if isinstance(task, str) and task in MAPS:
            reason = f"{MAPPED}: {reason}. Send each postback as a message of its own"
        raise Unreadable(reason, message_id)
    version = headers.get(SCHEMA_HEADER, SCHEMA)
    schema = str(version) if isinstance(version, int | str) else ""
    if schema.isdecimal() and (len(schema) > 9 or int(schema) > SCHEMA):  # Python reads no endless number
        raise Unreadable(
            f"{NEWER}: the message is of schema {schema[:20]}, this version reads up to {SCHEMA}. "
            "Start workers of that version, then `postbacks resend` it",
            message_id,
        )
    return message_id


def _content(envelope: Mapping[str, Any], headers: Mapping[str, Any]) -> Any:
    """Unpack a message's body and read its JSON."""
    if envelope.get("content-type") != "application/json":
        raise ValueError(f"its content type is {envelope.get('content-type')!r}, not application/json")
    body = envelope.get("body", "")
    properties = envelope.get("properties")
    if isinstance(properties, dict) and properties.get("body_encoding") == "base64":
        try:
            body = base64.b64decode(body, validate=True)
        except binascii.Error as error:
            raise ValueError(f"it is no base64: {error}") from None
    compression = headers.get("compression")
    if compression:
        if compression not in DECOMPRESSORS:
            raise ValueError(f"its compression {compression!r} is not supported (gzip and bzip2 are)")
        body = DECOMPRESSORS[compression]().decompress(body, MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"it is larger than {MAX_BODY_BYTES:,} bytes")
    text = body.decode("utf-8") if isinstance(body, bytes) else body
    # kombu marks what JSON cannot say (a datetime) with __type__; only then is its slower reader needed.
    return kombu_json.loads(text) if "__type__" in text else _read_json(text)


def _arguments(content: Any) -> tuple[list[Any], dict[str, Any]]:
    if not isinstance(content, list) or len(content) < 2:
        raise TypeError("it is no [args, kwargs, embed] of Celery's protocol 2")
    arguments = _args_and_kwargs(content[0], content[1])
    embed = content[2] if len(content) > 2 else None
    if isinstance(embed, dict):
        _check_afterwards(embed)
    return arguments


def _args_and_kwargs(args: object, kwargs: object) -> tuple[list[Any], dict[str, Any]]:
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise TypeError("its args are no list or its kwargs no object")
    return args, kwargs


def _check_afterwards(fields: Mapping[str, Any]) -> None:
    """Refuse a message that tells Celery what to do after the task."""
    names = [name for name in _AFTERWARDS if fields.get(name)]
    if names:
        raise ValueError(f"it asks for {' and '.join(names)} afterwards, which a postback cannot have")


def _read_json(text: str | bytes) -> Any:
    """Read JSON as ``json.loads`` does, in half its time; text that pydantic's reader refuses is left to ``json``."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


def _time(value: object, zone: tzinfo | None = None) -> datetime | None:
    """Read a time; a time without a zone is in ``zone``, or refused if that is None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError("its eta or expires is no ISO 8601 text")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None and zone is not None:
        moment = moment.replace(tzinfo=zone)
    if moment.tzinfo is None:
        raise ValueError("its eta or expires has no time zone")
    if moment.timestamp() > LATEST_S:
        raise ValueError("its eta or expires is past the year 9999")
    return moment
