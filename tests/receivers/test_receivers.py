"""examples/receivers: each language's receiver gets real postbacks of every code, and hostile requests."""

from __future__ import annotations

import select
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Barrier

import pytest
from click.testing import CliRunner
from events import examples, minimal_examples
from helpers import environment, eventually, set_account
from hostile_requests import BODY, CLOSED, ENDLESS, HUGE, SILENT, hostile_requests, request
from receiver_process import LANGUAGES, running_receiver

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
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
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
            lines = eventually(
                lambda: receiver.lines if len(receiver.lines) >= len(ids) else None, 30, "the lines"
            )
            later = max(record.sequence for record in records) + 1
            subscribed, unsubscribed = (BODY.replace(b"N301", code) for code in (b"N301", b"N302"))
            assert _post_in_turn(receiver, secret, (unsubscribed, later + 1), (subscribed, later)) == [
                True,
                False,
            ]
            state = receiver.state()
    documents = [read(render(parse_event(event))) for event in events]
    expected = {
        id_: (record.sequence, tags) for id_, record, tags in zip(ids, records, documents, strict=True)
    }
    assert {line["id"]: (line["sequence"], line["tags"]) for line in lines} == expected
    assert len(lines) == len(ids)
    assert state["SUB/15552312102/17041"] == (later + 1, "N302", "order-0")
    subjects = {subject.split("/")[0] for subject in state}
    assert subjects == {origin for origin, _ in examples()} - {"SMS_MO", "MMS_MO"}


def test_hostile_requests_are_refused_and_what_is_ours_is_kept(language, tmp_path):
    """Once each, over a kill. What cannot be stored is not answered with 200."""
    secret = secrets.new_secret()
    with running_receiver(language, secret, tmp_path) as receiver, ExitStack() as stack:
        away = receiver.data.rename(tmp_path / "away")
        assert answer(receiver.port, request(secret, "last"), stack) == "503"
        away.rename(receiver.data)

        rows = hostile_requests(secret)
        if language == "php":
            # Its own web server hands a request over once it has all of it, and takes any length; nginx says 413.
            rows = [
                replace(row, answers={SILENT}, is_whole=False) if row.name in {HUGE, ENDLESS} else row
                for row in rows
            ]
        answers = {row.name: _answers(receiver.port, row, stack) for row in rows}
        assert {row.name: answers[row.name] for row in rows if not answers[row.name] <= row.answers} == {}
        assert receiver.alive
        assert answer(receiver.port, request(secret, "last"), stack) == "200"

        # Killed, it goes on with what it has stored.
        receiver.kill()
        before = receiver.lines
        receiver.start()
        stored = [row.stored_id for row in rows if row.stored_id] + ["last", "another"]
        again = {answer(receiver.port, request(secret, postback_id), stack) for postback_id in stored}
        assert again == {"200"}
        handled = eventually(lambda: _handled(before, receiver.lines, "another"), 20, "the last line")
        assert handled == set(stored)
        assert (tmp_path / "escaped").exists() is False


def _handled(before, lines, last):
    """Ids of the lines of two runs, each once in a run, when the last one is among them."""
    ids = [line["id"] for line in lines]
    if last not in ids:
        return None
    assert len(ids) == len(set(ids))
    return {line["id"] for line in before} | set(ids)


def _post_in_turn(receiver, secret, *posts):
    """POST some, each when the one before it is handled; return whether each was the newest of its subject."""
    with ExitStack() as stack:
        for number, (body, sequence) in enumerate(posts):
            sent = request(secret, f"order-{number}", body, sequence=sequence)
            assert answer(receiver.port, sent, stack) == "200"
            eventually(lambda: any(line["id"] == f"order-{number}" for line in receiver.lines), 20, "a line")  # noqa: B023
    lines = {line["id"]: line["newest"] for line in receiver.lines}
    return [lines[f"order-{number}"] for number in range(len(posts))]


def _answers(port, row, stack):
    if isinstance(row.request, bytes):
        return {answer(port, row.request, stack, is_whole=row.is_whole)}
    barrier = Barrier(len(row.request))

    def send(sent):
        barrier.wait()
        return answer(port, sent, stack)

    with ThreadPoolExecutor(len(row.request)) as pool:
        return set(pool.map(send, row.request))
