"""Log events: a dotted name and fields, written as ``key=value`` or as JSON.

A module writes ``log = EventLog(__name__)`` and ``log.warning("broker.unsafe", "what to do", url=…)``. Importing this
module configures no logging: an application that imports ``postbacks`` sees ordinary records with a readable message,
and with event and fields as attributes. ``celeryext/logs.py`` gives the formatters below to our workers and beats.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from postbacks.printable import json_text, printable
from postbacks.urls import redacted

#: Begin of a line, as Celery writes it; ``postbacks up`` and others read the level from it.
_PREFIX: Final = "[%(asctime)s: %(levelname)s/%(processName)s] "
#: Most characters of a field, so that a line can be read.
MAX_FIELD: Final = 2000
#: Most characters of a traceback.
MAX_TRACE: Final = 20_000

_WORD: Final = re.compile(r"[^\s\"'=]+")
_USER_INFO: Final = re.compile(r"(://)[^\s'\"<>]*@")
_WEB_URL: Final = re.compile(r"\bhttps?://[^\s'\"<>()]+", re.IGNORECASE)
#: Tags that tell of a person (``privacy/tags.py``, which stands above), as Python, JSON and XML name them.
PRIVATE: Final = (
    "TEXT", "SUBJECT", "KEYWORD", "FROM", "TO", "MOBILE", "SHORTCODE", "EMAIL", "REFERENCEVALUE", "FILE",
    "text", "subject", "keyword", "from_", "to", "mobile", "short_code", "email", "reference_value",
)  # fmt: skip
_PRIVATE: Final = f"(?:{'|'.join(PRIVATE)})"
_IN_MAPPING: Final = re.compile(
    rf"""(\\?["']{_PRIVATE}\\?["']\s*:\s*)(?:\\"(?:[^"])*?\\"|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|\d{{7,}})"""
)
#: Phone number or e-mail address between quotes, as errors quote values. Names of nodes (celery@host) stand without.
_QUOTED_NAME: Final = re.compile(
    r"""(?P<quote>\\?["'])(?:\+?\d{7,}|[^\s"'@\\]{1,64}@[^\s"'@\\]+)(?P=quote)"""
)
_IN_XML: Final = re.compile(rf"<({_PRIVATE})>.*?(</\1>|$)", re.DOTALL)
#: Quotations: not of an origin or a code, which are words of the catalogue, or no person's.
_QUOTED: Final = re.compile(
    r"""(?<![^\s(\[{:,=])(?<!CODE: unknown: )(?<!ORIGIN: unknown: )(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))"""
)


def mask(text: str) -> str:
    """Return a text as a log may hold it: no password or query of a URL, no words, number or address of a person."""
    if "://" in text:
        text = _WEB_URL.sub(lambda match: redacted(match[0]), _USER_INFO.sub(r"\1***@", text))
    if "'" in text or '"' in text:
        text = _QUOTED_NAME.sub(r"\g<quote>…\g<quote>", _IN_MAPPING.sub(r"\1'…'", text))
    return _IN_XML.sub(r"<\1>…</\1>", text) if "<" in text else text


def unquoted(text: str) -> str:
    """Return a sentence with ``'…'`` in place of its quotations: errors about an event quote the customer's words."""
    return _QUOTED.sub("'…'", text)


class EventLog:
    """Writer of log events: each has a name, a detail to know or to do, and fields.

    Args:
        name: of the logger, which is the module's.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, detail: str = "", **fields: object) -> None:
        """Write an event that helps to find a fault."""
        self.write(logging.DEBUG, event, detail, fields)

    def info(self, event: str, detail: str = "", **fields: object) -> None:
        """Write an event that is worth knowing."""
        self.write(logging.INFO, event, detail, fields)

    def warning(self, event: str, detail: str = "", **fields: object) -> None:
        """Write an event that somebody should look at."""
        self.write(logging.WARNING, event, detail, fields)

    def error(self, event: str, detail: str = "", **fields: object) -> None:
        """Write an event that somebody must look at."""
        self.write(logging.ERROR, event, detail, fields)

    def exception(self, event: str, detail: str = "", **fields: object) -> None:
        """Write an event with the exception that is being handled."""
        self.write(logging.ERROR, event, detail, fields, exc_info=True)

    def write(
        self, level: int, event: str, detail: str, fields: Mapping[str, object], *, exc_info: bool = False
    ) -> None:
        """Write an event at a level; leave out fields that are None."""
        if not self._logger.isEnabledFor(level):
            return
        masked = {name: _masked(value) for name, value in fields.items() if value is not None}
        if detail:
            masked["detail"] = _masked(detail)
        self._logger.log(
            level,
            "%s",
            line(event, masked),
            exc_info=exc_info,
            extra={"event": event, "fields": masked, **masked},
            stacklevel=3,
        )


def _masked(value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    return mask(str(value))[:MAX_FIELD]


def line(event: str, fields: Mapping[str, object]) -> str:
    """Return an event as one line, ``event key=value …``; a value with spaces or quotes is quoted as in JSON."""
    return " ".join([event, *(f"{name}={_value(value)}" for name, value in fields.items())])


def _value(value: object) -> str:
    text = str(value)
    if _WORD.fullmatch(text) and text.isprintable():
        return text
    return json_text(text)


def _event_of(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """Return the event and the fields of a record; a record of another library has its logger's name for an event."""
    event, fields = getattr(record, "event", None), getattr(record, "fields", None)
    if isinstance(event, str) and isinstance(fields, dict):
        return event, dict(fields)
    return record.name, {"detail": mask(record.getMessage().strip())[:MAX_TRACE]}


class TextFormatter(logging.Formatter):
    """Formatter of text: ``[time: LEVEL/process] event key=value …``; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__(_PREFIX + "%(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Put the line of the record together."""
        event, fields = _event_of(record)
        record.message = line(event, fields)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Put the record together; indent its further lines, so that no text of an error looks like a record."""
        first, *rest = super().format(record).split("\n")
        return "\n".join([first, *(f"  {printable(text)}" for text in rest)])

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback without secrets."""
        return mask(super().formatException(ei))[-MAX_TRACE:]


class JsonFormatter(logging.Formatter):
    """Formatter of JSON, one object a line: ts, level, event, logger, process, pid, the event's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Put the line of the record together."""
        event, fields = _event_of(record)
        ts = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values: dict[str, object] = {
            "ts": ts.replace("+00:00", "Z"),
            "level": record.levelname,
            "event": event,
            "logger": record.name,
            "process": record.processName,
            "pid": record.process,
        }
        values |= {name: value for name, value in fields.items() if name not in values}
        if record.exc_info:
            values["exception"] = mask(self.formatException(record.exc_info))[-MAX_TRACE:]
        return json.dumps(values, default=str)


def formatter(form: str) -> logging.Formatter:
    """Return the formatter for ``POSTBACKS_LOG``: ``text`` or ``json``."""
    return JsonFormatter() if form == "json" else TextFormatter()


def write_to_stderr(form: str, level: int = logging.INFO) -> None:
    """Log to stderr in the form of ``POSTBACKS_LOG``, in a process that Celery does not run."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
