"""examples/receivers: each language's receiver gets real postbacks of every code, and hostile requests."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sqlite3
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from answers_table import PAGE, read_table, write_column
from click.testing import CliRunner
from command_blocks import ROOT, Machine, blocks_of
from events import examples, minimal_examples
from helpers import environment, eventually, set_account
from hostile_requests import BODY, CLOSED, ENDLESS, HUGE, SILENT, hostile_requests, request
from receiver_process import FOLDER, LANGUAGES, missing, running_changed, running_receiver

from postbacks import send_postbacks
from postbacks.accounts import secrets
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import read, render
from postbacks.cli import main

#: Text that a reader of XML may get wrong: what is escaped, what is normalised, what has two code units or two lines.
ODD_TEXT = " \r\n\t]]> <b>&amp;&lt;</b> \"'\r\U0001f44d é️ \u2028 "
#: Events beside those of the catalogue: empty values, odd ones, and nearly the largest document.
ODD_EVENTS = [
    examples()["SMS_MO", "N211"] | {"TEXT": ""},
    examples()["SMS_MO", "N211"] | {"TEXT": ODD_TEXT},
    examples()["MMS_MO", "N401"] | {"SUBJECT": "&" * 65_000, "KEYWORD": "&" * 65_000,
                                    "CONTENT": {"FILE": [f"https://cdn.example/?{'&' * 1000}"] * 124}},
]  # fmt: skip


def answer(port: int, sent: bytes, stack: ExitStack, *, is_whole: bool = True) -> str:
    """Send a request over a connection of its own; return the status of the answer, or what came instead."""
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    view = memoryview(sent)
    while view:
        # Who has answered is told no more: what is sent to a closed connection could take the answer away.
        readable, writable, _ = select.select([connection], [connection], [], 20)
        if readable or not writable:
            break
        view = view[connection.send(view[:65_536]) :]
    received = b""
    try:
        while b"\r\n\r\n" not in received:
            if not is_whole and not select.select([connection], [], [], 0)[0]:
                return SILENT
            part = connection.recv(65_536)
            if not part:
                return CLOSED
            received += part
    except ConnectionResetError:
        return CLOSED
    return received.split(b" ")[1].decode()


@pytest.fixture(params=LANGUAGES)
def language(request):
    """Name of a language that has a receiver."""
    return request.param


def test_real_postbacks_of_every_code_arrive_as_they_were_sent(rig, language, tmp_path):
    """Tags, sequence and id. A test postback is not stored; what is older and comes later changes no state."""
    events = [*examples().values(), *minimal_examples().values(), *ODD_EVENTS]
    with environment(POSTBACKS_SECRET_KEY=secrets.new_key()):
        set_account("acme", url="http://127.0.0.1:8080/")
        secret = CliRunner().invoke(main, ["account", "secret", "rotate", "acme"]).stdout.strip()
        with running_receiver(language, secret, tmp_path) as receiver:
            url = f"http://127.0.0.1:{receiver.port}/postbacks"
            changed = CliRunner().invoke(main, ["account", "set", "acme", "--url", url])
            assert changed.exit_code == 0, changed.output
            ids = send_postbacks("acme", events)
            rig.tick()
            rig.deliver()
            records = [rig.record(postback_id) for postback_id in ids]
            assert {record.state for record in records} == {"delivered"}, receiver.log
            pinged = CliRunner().invoke(main, ["ping", "acme"])
            assert pinged.exit_code == 0, pinged.output
            eventually(lambda: len(receiver.lines) >= len(ids), what="the lines")
            later = max(record.sequence for record in records) + 1
            subscribed, unsubscribed = (BODY.replace(b"N301", code) for code in (b"N301", b"N302"))
            newest = _post_in_turn(receiver, secret, (unsubscribed, later + 1), (subscribed, later))
            assert newest == [True, False]
            lines, state = receiver.lines, receiver.state()
    documents = [read(render(parse_event(event))) for event in events]
    expected = {
        id_: (record.sequence, tags) for id_, record, tags in zip(ids, records, documents, strict=True)
    }
    assert {line["id"]: (line["sequence"], line["tags"]) for line in lines[:-2]} == expected
    assert len(lines) == len(ids) + 2
    assert state["SUB/15552312102/17041"] == (later + 1, "N302", "order-0")
    subjects = {subject.split("/")[0] for subject in state}
    assert subjects == {origin for origin, _ in examples()} - {"SMS_MO", "MMS_MO"}


def test_hostile_requests_are_refused_and_what_is_ours_is_kept(language, tmp_path):
    """Once each, over a kill. What cannot be stored is not answered with 200."""
    secret = secrets.new_secret()
    with running_receiver(language, secret, tmp_path) as receiver, ExitStack() as stack:
        away = receiver.data.rename(tmp_path / "away")
        assert answer(receiver.port, request(secret, "last"), stack) == "503"
        eventually(lambda: "not stored: " in receiver.log, what="a line about it")
        away.rename(receiver.data)

        rows = _rows(language, secret)
        answers = {row.name: _answers(receiver.port, row, stack) for row in rows}
        assert {row.name: answers[row.name] for row in rows if not answers[row.name] <= row.answers} == {}
        write_column(language, {name: "/".join(sorted(statuses)) for name, statuses in answers.items()})
        assert receiver.alive
        # PHP's own web server closes a connection, and says so.
        assert _posts_over_one_connection(receiver.port, request(secret, "last")) == (
            1 if language == "php" else 2
        )

        # Killed, it goes on with what it has stored.
        receiver.kill()
        before = receiver.lines
        receiver.start()
        stored = [row.stored_id for row in rows if row.stored_id] + ["last", "another"]
        _make_old(receiver, "last")
        again = {answer(receiver.port, request(secret, postback_id), stack) for postback_id in stored}
        assert again == {"200"}
        assert _last_came_s(receiver, "last") > time.time() - 600
        handled = eventually(lambda: _handled(before, receiver.lines, "another"), what="the last line")
        assert handled == set(stored)
        codes = {line["tags"]["CODE"] for line in before + receiver.lines if line["id"] == "at-once"}
        assert codes == {"N301"}
        assert (tmp_path / "escaped").exists() is False


@pytest.mark.parametrize(
    ("file", "first_line", "failing"),
    [
        ("python/receiver.py", "    tags = parse(body)\n    subject", '    {}["no"]\n'),
        ("php/receiver.php", "    $tags = parse($body);\n    $subject", "    intdiv(1, 0);\n"),
    ],
)  # fmt: skip
def test_a_program_that_fails_is_called_again(file, first_line, failing, tmp_path):
    """The receiver goes on, and says what was raised. The other languages call it for each postback by itself."""
    reason = missing(file.split("/")[0])
    if reason:
        pytest.skip(reason)
    source = (FOLDER / file).read_text()
    assert source.count(first_line) == 1
    secret = secrets.new_secret()
    with (
        running_changed(source.replace(first_line, failing + first_line), secret, tmp_path) as receiver,
        ExitStack() as stack,
    ):
        assert answer(receiver.port, request(secret, "first"), stack) == "200"
        eventually(lambda: receiver.log.count("not handled, again in a second: ") > 1, what="two calls")
        assert receiver.alive


def test_the_page_names_every_hostile_request_with_a_right_answer(language):
    """A version of a language may give another of the right ones."""
    table = read_table()
    rows = _rows(language, secrets.new_secret())
    assert list(table) == [row.name for row in rows]
    assert {
        row.name: table[row.name][language] for row in rows if table[row.name][language] not in row.answers
    } == {}


@pytest.mark.long
def test_a_reader_follows_the_page_to_a_stored_postback(tmp_path):
    """Three terminals, as they stand there, with the receiver in Python."""
    up, prepare, receive, send = (
        block.text for block in blocks_of("README.md", PAGE.read_text()) if block.language == "sh"
    )
    with Machine(tmp_path) as machine:
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        for line in up.splitlines()[:-1]:
            assert machine.type(line).returncode == 0
        up_terminal = machine.start(up.splitlines()[-1])
        up_terminal.wait_for("Ctrl-C stops all of it.")
        exports = "\n".join(re.findall(r"^\s*(export .*)$", up_terminal.printed, re.MULTILINE))
        prepared = machine.type(f"{exports}\n{prepare}")
        assert prepared.returncode == 0, prepared.stderr
        receiver = machine.start(receive.replace("python3", f"exec {sys.executable}"))
        receiver.wait_for("listening on http://127.0.0.1:8080/")
        sent = machine.type(f"{exports}\n{send}")
        assert sent.returncode == 0, sent.stdout + sent.stderr
        receiver.wait_for('"newest": true')
        assert json.loads(sent.stdout.splitlines()[-1])["code"] == "N302"


@pytest.mark.long
def test_a_client_that_sends_no_body_is_cut_off(tmp_path):
    """After 10 s, by all but PHP, whose web server's business it is. Meanwhile 100 of them keep nobody out."""
    secret = secrets.new_secret()
    with ExitStack() as stack:
        languages = [language for language in LANGUAGES if language != "php" and not missing(language)]
        connections = {}
        for language in languages:
            folder = tmp_path / language
            folder.mkdir()
            receiver = stack.enter_context(running_receiver(language, secret, folder))
            connection = socket.create_connection(("127.0.0.1", receiver.port), timeout=60)
            connections[language] = stack.enter_context(connection)
            connection.sendall(request(secret, "slow")[:-1])
            for _ in range(99):
                slow = stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port), timeout=60))
                slow.sendall(request(secret, "slow")[:-1])
            assert answer(receiver.port, request(secret, "quick"), stack) == "200"
        answers = {language: connection.recv(65_536) for language, connection in connections.items()}
    assert [language for language, received in answers.items() if b" 200 " in received] == []


def _posts_over_one_connection(port, sent):
    """POST up to twice over one connection, and return how many were answered with 200."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        for number in range(2):
            connection.sendall(sent)
            received = b""
            while not received.endswith(b"OK"):
                received += connection.recv(65_536)
            assert received.startswith(b"HTTP/1.1 200 ")
            if b"connection: close" in received.lower():
                return number + 1
    return 2


def _rows(language, secret):
    """Hostile requests with the answers of a language."""
    rows = hostile_requests(secret)
    if language != "php":
        return rows
    # Its own web server hands a request over once it has all of it, and takes any length; nginx says 413.
    return [
        replace(row, answers=frozenset({SILENT}), is_whole=False) if row.name in {HUGE, ENDLESS} else row
        for row in rows
    ]


def _make_old(receiver, postback_id):
    """Have a stored postback come in 1970."""
    if receiver.database.exists():
        with closing(sqlite3.connect(receiver.database)) as connection, connection:
            connection.execute("UPDATE postbacks SET received_s = 0 WHERE id = ?", (postback_id,))
    else:
        os.utime(receiver.file(postback_id), (0, 0))


def _last_came_s(receiver, postback_id):
    """When a stored postback came last: 31 days later its id may be forgotten."""
    if not receiver.database.exists():
        return receiver.file(postback_id).stat().st_mtime
    query = "SELECT received_s FROM postbacks WHERE id = ?"
    with closing(sqlite3.connect(receiver.database)) as connection:
        return connection.execute(query, (postback_id,)).fetchone()[0]


def _handled(before, lines, last):
    """Ids of the lines of two runs, each once in a run, when the last one is among them."""
    ids = [line["id"] for line in lines]
    ids_before = [line["id"] for line in before]
    if last not in ids:
        return None
    assert (len(ids_before), len(ids)) == (len(set(ids_before)), len(set(ids)))
    return {*ids_before, *ids}


def _post_in_turn(receiver, secret, *posts):
    """POST some, each when the one before it is handled; return whether each was the newest of its subject."""
    with ExitStack() as stack:
        for number, (body, sequence) in enumerate(posts):
            sent = request(secret, f"order-{number}", body, sequence=sequence)
            assert answer(receiver.port, sent, stack) == "200"
            eventually(lambda: any(line["id"] == f"order-{number}" for line in receiver.lines), what="a line")  # noqa: B023
    lines = {line["id"]: line["newest"] for line in receiver.lines}
    return [lines[f"order-{number}"] for number in range(len(posts))]


def _answers(port, row, stack):
    """Answers to the requests of a row; several are whole at the same moment."""
    if isinstance(row.request, bytes):
        return {answer(port, row.request, stack, is_whole=row.is_whole)}
    connections = [
        stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in row.request
    ]
    for part in (slice(None, -1), slice(-1, None)):
        for connection, sent in zip(connections, row.request, strict=True):
            connection.sendall(sent[part])
    return {connection.recv(65_536).split(b" ")[1].decode() for connection in connections}
