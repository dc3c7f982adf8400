"""The log's forms, what they hide, and the table of events in the docs."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import cells

import postbacks
from postbacks.catalogue import InvalidEvent, parse_event
from postbacks.celeryext.logs import TicksAreDebug
from postbacks.logs import EventLog, JsonFormatter, TextFormatter, mask, unquoted

ROOT = Path(postbacks.__file__).parent
DOCS = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
SECRET = "words nobody may read"
LEVELS = ("debug", "info", "warning", "error", "exception")


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Every call of a module's ``log``."""
    texts = {path: path.read_text() for path in ROOT.rglob("*.py")}
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)) if "log." in text else ():
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and getattr(node.func.value, "id", "") == "log"
            ):
                yield path, node


def test_the_table_of_the_docs_has_every_event_of_the_code_with_its_level():
    """By the source: names written out, dotted, and fields that a log record does not have itself."""
    taken = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    levels: dict[str, set[str]] = {}
    fields: dict[str, set[str]] = {}
    for path, call in calls():
        name = call.args[0]
        assert isinstance(name, ast.Constant), f"{path}:{call.lineno}: an event's name must be written out"
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name.value), f"{path}:{call.lineno}: {name.value}"
        assert len(call.args) <= 2, f"{path}:{call.lineno}: facts are fields, the text is no format"
        assert not {keyword.arg for keyword in call.keywords} & taken, f"{path}:{call.lineno}"
        level = "error" if call.func.attr == "exception" else call.func.attr
        levels.setdefault(name.value, set()).add(level.upper())
        fields.setdefault(name.value, set()).update(
            word.arg for word in call.keywords if word.arg != "detail"
        )
    table = DOCS.split("| event |")[1].split("\n\n")[0]
    rows = [row for row in map(cells, table.splitlines()) if row[0].startswith("`")]
    names = [row[0].strip("`") for row in rows]
    assert names == sorted(levels)
    for name, (_, level, shown, when, remedy) in zip(names, rows, strict=True):
        assert level in levels[name], name
        assert when, name
        assert remedy, name
        assert remedy != "nothing" or level != "ERROR", f"{name}: an error wants something to be done"
        if None not in fields[name]:  # else it has fields of a mapping as well
            assert set(filter(None, shown.split(", "))) == fields[name], name


def written(formatter: logging.Formatter, write) -> str:
    """Return what a formatter makes of a log record."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(formatter.format(record))
    logger = logging.getLogger("tests.logs")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        write(EventLog("tests.logs"), logger)
    finally:
        logger.removeHandler(handler)
    (line,) = lines
    return line


def test_an_event_is_one_line_whatever_its_values_hold():
    """Line ends, quotes and control characters are escaped; both forms tell the same."""

    def write(events, _):
        events.info("some.thing", 'a "b"\n\x85\u2028c', account="acme", id="x=1", status=None, open=3)

    text = written(TextFormatter(), write)
    assert len(text.splitlines()) == 1
    assert 'some.thing account=acme id="x=1" open=3 detail="a \\"b\\"\\n\\u0085\\u2028c"' in text
    told = json.loads(written(JsonFormatter(), write))
    assert (told["event"], told["account"], told["open"], told["detail"]) == (
        "some.thing", "acme", 3, 'a "b"\n\x85\u2028c',
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["ts"])
    assert "status" not in told


def test_an_exception_is_one_line_of_json_without_what_it_must_not_show():
    """The traceback is a field; passwords and messages in it are masked, and so are Celery's own lines."""

    def write(_, logger):
        try:
            int("TEXT='" + f"{{'TEXT': '{SECRET}'}} http://user:hunter2@host/?key=value")
        except ValueError:
            logger.exception("Task %s failed", f'{{"TEXT": "{SECRET}"}}')

    line = written(JsonFormatter(), write)
    told = json.loads(line)
    assert "\n" not in line
    assert told["event"] == told["logger"] == "tests.logs"
    assert "ValueError" in told["exception"]
    assert [
        hidden for hidden in (SECRET, "hunter2", 'value"') if hidden in line.replace("ValueError", "")
    ] == []


@pytest.mark.parametrize(
    "text",
    [
        f"<postback><TEXT>{SECRET}</TEXT></postback>",
        f'body: \'[["acme", {{"TEXT": "{SECRET}"}}]]\'',
        f"{{'CODE': 'N211', 'TEXT': '{SECRET}'}}",
        f'{{\\"TEXT\\": \\"{SECRET}\\", \\"TO\\": 1}}',
        f"redis://:{SECRET.replace(' ', '@')}@host:6379/0",
        f"https://user:{SECRET.replace(' ', '_')}@host/path",
        f"https://host/path?token={SECRET.replace(' ', '_')}",
    ],
)
def test_what_may_not_be_read_is_masked(text):
    """An event as XML, JSON or Python, and URLs."""
    shown = mask(text)
    assert [word for word in ("words", "nobody", "read") if word in shown] == []


def test_an_error_about_an_event_is_told_without_what_it_quotes():
    """A fault quotes the value; the log names the tag alone."""
    with pytest.raises(InvalidEvent) as fault:
        parse_event({"ORIGIN": "SMS_MO", "CODE": "N211", "TEXT": [SECRET], "it's": "O'Brien " + SECRET})
    shown = unquoted(str(fault.value))
    assert "TEXT: must be text" in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("message", "args", "kept"),
    [
        ("Task %(name)s[%(id)s] received", ({"name": "postbacks.dispatch", "id": 1},), False),
        ("Task %(name)s[%(id)s] received", ({"name": "postbacks.send_postback", "id": 1},), True),
        ("Scheduler: Sending due task %s (%s)", ("postbacks.dispatch", "postbacks.dispatch"), False),
        ("beat: Starting...", (), True),
    ],
)
def test_only_lines_about_ticks_are_lowered(message, args, kept):
    """They are DEBUG then, and written where that is asked for."""
    record = logging.LogRecord("celery.beat", logging.INFO, "", 0, message, args, None)
    logger = logging.getLogger("celery.beat")
    before = logger.level
    try:
        logger.setLevel(logging.INFO)
        assert TicksAreDebug().filter(record) is kept
        assert record.levelname == ("INFO" if kept else "DEBUG")
        logger.setLevel(logging.DEBUG)
        assert TicksAreDebug().filter(record)
    finally:
        logger.setLevel(before)
