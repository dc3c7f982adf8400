"""What all of postbacks logs with: a dotted event name and its fields, as ``key=value`` or as JSON.

A module writes ``log = EventLog(__name__)`` and ``log.warning("broker.unsafe", "what to do", url=…)``. Nobody's
logging is configured here: an application that imports ``postbacks`` sees ordinary records with the event, its
fields as attributes and a message that can be read. ``celeryext/logs.py`` puts the formatters below on the handlers
of our own workers and beats.
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

#: What Celery's own text form begins with; `postbacks up` and others know the level by it.
_PREFIX: Final = "[%(asctime)s: %(levelname)s/%(processName)s] "
#: Characters that a field of the log holds at most: a line stays one that can be read.
MAX_FIELD: Final = 2000
MAX_TRACE: Final = 20_000

_WORD: Final = re.compile(r"[^\s\"'=]+")
_USER_INFO: Final = re.compile(r"(://)[^\s'\"<>]*@")
_WEB_URL: Final = re.compile(r"\bhttps?://[^\s'\"<>()]+", re.IGNORECASE)
#: Words that people wrote, wherever an event is shown as Python, JSON or XML.
_PRIVATE: Final = r"(?:TEXT|SUBJECT|KEYWORD|text|subject|keyword)"
_IN_MAPPING: Final = re.compile(
    rf"""(\\?["']{_PRIVATE}\\?["']\s*:\s*)(?:\\"(?:[^"])*?\\"|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)"""
)
_IN_XML: Final = re.compile(rf"<({_PRIVATE})>.*?(</\1>|$)", re.DOTALL)
_QUOTED: Final = re.compile(r"""(?<![^\s(\[{:,=])(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))""")


def mask(text: str) -> str:
    """Return a text as a log may hold it: no password or query of a URL, no words of a message."""
    if "://" in text:
        text = _WEB_URL.sub(lambda found: redacted(found[0]), _USER_INFO.sub(r"\1***@", text))
    if "text" in text.lower() or "subject" in text.lower() or "keyword" in text.lower():
        text = _IN_XML.sub(r"<\1>…</\1>", _IN_MAPPING.sub(r"\1'…'", text))
    return text


def unquoted(text: str) -> str:
    """Return a sentence without what it quotes: an error about an event quotes the customer's words."""
    return _QUOTED.sub("'…'", text)


class EventLog:
    """Writes events; the first argument is the event's name, the second what to know or do.

    Args:
        name: of the logger: the module's.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, detail: str = "", **fields: object) -> None:
        """Write an event that only helps to find a fault."""
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
        """Write an event at a level. Fields that are None are left out."""
        if not self._logger.isEnabledFor(level):
            return
        known = {name: _plain(value) for name, value in fields.items() if value is not None}
        if detail:
            known["detail"] = _plain(detail)
        self._logger.log(
            level,
            "%s",
            line(event, known),
            exc_info=exc_info,
            extra={"event": event, "fields": known, **known},
            stacklevel=3,
        )


def _plain(value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    return mask(str(value))[:MAX_FIELD]


def line(event: str, fields: Mapping[str, object]) -> str:
    """Return an event as ``event key=value …``: one line, values with spaces or quotes in JSON's quotes."""
    return " ".join([event, *(f"{name}={_value(value)}" for name, value in fields.items())])


def _value(value: object) -> str:
    text = str(value)
    if _WORD.fullmatch(text) and text.isprintable():
        return text
    return json_text(text)


def _event_of(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """The event and the fields of a record; one that is not ours has its logger's name for an event."""
    event, fields = getattr(record, "event", None), getattr(record, "fields", None)
    if isinstance(event, str) and isinstance(fields, dict):
        return event, dict(fields)
    return record.name, {"detail": mask(record.getMessage().strip())[:MAX_TRACE]}


class TextFormatter(logging.Formatter):
    """``[time: LEVEL/process] event key=value …``; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__(_PREFIX + "%(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Put the line of the record together."""
        event, fields = _event_of(record)
        record.message = line(event, fields)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Put the record together; what follows its line is indented, so that no text of an error looks like another."""
        first, *rest = super().format(record).split("\n")
        return "\n".join([first, *(f"  {printable(following)}" for following in rest)])

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Show a traceback without secrets."""
        return mask(super().formatException(ei))[-MAX_TRACE:]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, event, logger, process, pid, the event's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Put the line of the record together."""
        event, fields = _event_of(record)
        ts = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, object] = {
            "ts": ts.replace("+00:00", "Z"),
            "level": record.levelname,
            "event": event,
            "logger": record.name,
            "process": record.processName,
            "pid": record.process,
        }
        told |= {name: value for name, value in fields.items() if name not in told}
        if record.exc_info:
            told["exception"] = mask(self.formatException(record.exc_info))[-MAX_TRACE:]
        return json.dumps(told, default=str)


def formatter(form: str) -> logging.Formatter:
    """Return the formatter for ``POSTBACKS_LOG``: ``text`` or ``json``."""
    return JsonFormatter() if form == "json" else TextFormatter()


def write_to_stderr(form: str, level: int = logging.INFO) -> None:
    """Write everything to stderr in the form of ``POSTBACKS_LOG``: for our processes that are none of Celery's."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
