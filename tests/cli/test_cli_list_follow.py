"""``postbacks list --follow``: what comes and what ends is shown, until Ctrl-C or its reader ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from history.records import make_document, make_record
from listing import HOUR_MS, RECORDS, call, now_ms, posts

from postbacks.errors import BrokerUnreachable
from postbacks.ledger import search

#: The command as it is installed.
POSTBACKS = str(Path(sys.executable).with_name("postbacks"))
pytestmark = pytest.mark.usefixtures("forked")


def test_follow_shows_what_comes_and_shows_it_again_when_it_ends(recorded, polls):
    came = now_ms()
    new = {"state": "waiting", "accepted_ms": came}
    end = {"state": "dead", "accepted_ms": came, "attempts": posts(500), "reason": "status"}

    def parked_ends():
        at = HOUR_MS + list(RECORDS).index("parked") * 1000
        recorded.hold(
            "parked", state="delivered", accepted_ms=at, attempts=posts(500, 200), ended_ms=now_ms() + 1
        )

    polls(
        lambda: recorded.record(recorded.hold("new", **new)),
        lambda: None,
        lambda: recorded.hold("new", **end, ended_ms=now_ms() + 1),
        # The history reads what the broker said before.
        lambda: recorded.record(make_record("new", **end, ended_ms=came + 5)),
        parked_ends,
        # Accepted and ended before the history knew of it.
        lambda: recorded.hold("quick", state="delivered", accepted_ms=now_ms(), attempts=posts(200), ended_ms=now_ms() + 1),
        lambda: None,
    )  # fmt: skip
    shown = recorded.call("--follow", "--json", "--limit", "3")
    assert shown.exit_code == 0
    rows = [(row["id"], row["state"]) for row in map(json.loads, shown.stdout.splitlines())]
    assert rows == [
        ("reply", "delivered"), ("waiting", "waiting"), ("parked", "parked"),
        ("new", "waiting"), ("new", "dead"), ("parked", "delivered"), ("quick", "delivered"),
    ]  # fmt: skip
    assert shown.stderr == "Ctrl-C ends it.\n"


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (("--dead",), ["n-dead", "n-number"]),
        (("--state", "delivered"), ["n-delivered"]),
        (("--account", "beta"), ["n-beta"]),
        (("--dead", "--status", "503"), ["n-number"]),
        (("--number", "1-555-777-8888"), ["n-number"]),
        (("--host", "hooks.acme.example", "--dead"), ["n-dead", "n-number"]),
        (("--code", "N211"), []),
        (("--slower-than", "3s"), []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_follow_shows_only_what_fits(recorded, polls, args, found):
    def end():
        at = now_ms()
        recorded.hold("n-dead", state="dead", accepted_ms=at, attempts=posts(500), ended_ms=at + 1)
        recorded.hold("n-delivered", state="delivered", accepted_ms=at, attempts=posts(200), ended_ms=at + 2)
        recorded.hold("n-beta", state="skipped", accepted_ms=at, account="beta", ended_ms=at + 3, url="")
        recorded.hold("n-number", state="dead", accepted_ms=at, attempts=posts(503), ended_ms=at + 4,
                      document=make_document(to="15557778888"))  # fmt: skip

    of_broker = set(args) <= {"--dead", "--state", "delivered", "--account", "beta"}
    for history in (recorded.url, *([""] if of_broker else [])):
        recorded.forget("n-dead", "n-delivered", "n-beta", "n-number")
        polls(end, lambda: None)
        shown = call("--follow", "-o", "id", *args, history=history)
        assert shown.exit_code == 0, shown.output
        assert [postback_id for postback_id in shown.stdout.split() if postback_id.startswith("n-")] == found


def test_follow_goes_on_when_the_broker_is_back(recorded, polls, monkeypatch):
    ended_ids = search.ended_ids

    def away():
        monkeypatch.setattr(search, "ended_ids", raising)

    def raising(*_, **__):
        raise BrokerUnreachable("The broker does not answer.")

    def back():
        monkeypatch.setattr(search, "ended_ids", ended_ids)
        recorded.hold(
            "n-dead", state="dead", accepted_ms=now_ms(), attempts=posts(500), ended_ms=now_ms() + 1
        )

    polls(away, lambda: None, back)
    shown = recorded.call("--follow", "--dead", "-o", "id")
    assert shown.stdout.split()[-1] == "n-dead"
    assert shown.stderr.splitlines() == [
        "Ctrl-C ends it.",
        "The broker does not answer. It goes on as soon as that is over.",
    ]


def test_follow_ends_with_ctrl_c_in_a_poll_once_the_poll_has_ended(recorded, polls, monkeypatch):
    """A database that is interrupted as it reads or closes prints a traceback, or drops the interrupt."""
    times = []

    def interrupted(*args, **kwargs):
        times.append(1)
        signal.raise_signal(signal.SIGINT)
        return ended_ids(*args, **kwargs)

    ended_ids = search.ended_ids
    monkeypatch.setattr(search, "ended_ids", interrupted)
    polls(
        lambda: recorded.hold("n-dead", state="dead", accepted_ms=now_ms(), attempts=posts(500), ended_ms=now_ms() + 1)
    )  # fmt: skip
    shown = recorded.call("--follow", "--dead", "-o", "id")
    assert (shown.exit_code, shown.stdout.split()[-1], times) == (0, "n-dead", [1])
    assert shown.stderr == "Ctrl-C ends it.\n"


def test_follow_ends_with_the_second_ctrl_c_in_a_poll_that_hangs(recorded, polls, monkeypatch):
    def hangs(*_, **__):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one is as the first")

    monkeypatch.setattr(search, "ended_ids", hangs)
    polls(lambda: None)
    shown = recorded.call("--follow", "--dead", "-o", "id")
    assert (shown.exit_code, shown.stderr) == (0, "Ctrl-C ends it.\n")


def test_follow_prints_lines_whose_columns_stand_below_each_other(recorded, polls):
    polls(
        lambda: recorded.hold(
            "n", state="dead", accepted_ms=now_ms(), attempts=posts(500), ended_ms=now_ms() + 1
        )
    )
    lines = recorded.call("--follow", "--dead").stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["dead", "refused", "n"]
    assert len({line.index("SMS_MT N202") for line in lines}) == 1


def test_follow_ends_with_ctrl_c_and_with_its_reader_and_without_a_traceback(recorded, broker):
    env = {**os.environ, "POSTBACKS_BROKER_URL": broker.url, "POSTBACKS_HISTORY_URL": recorded.url}
    command = [POSTBACKS, "list", "--follow", "-o", "id"]
    for by_signal in (True, False):
        with subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            lines = [process.stdout.readline().strip() for _ in RECORDS]
            assert lines == list(RECORDS)
            if by_signal:
                process.send_signal(signal.SIGINT)
            else:
                process.stdout.close()
            assert process.wait(90) == 0
            assert process.stderr.read() == "Ctrl-C ends it.\n"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_follow_shows_whom_it_is_about(recorded, polls, form):
    document = make_document(to="15557778888")
    ended = {"state": "delivered", "attempts": posts(200), "document": document}
    polls(lambda: recorded.hold("n", **ended, accepted_ms=now_ms(), ended_ms=now_ms() + 1))
    shown = recorded.call("--follow", "--person", "--state", "delivered", *form)
    assert shown.exit_code == 0, shown.output
    assert [re.findall(r"1555…\d\d(?= ·)|28444", line) for line in shown.stdout.splitlines()] == [
        ["1555…37"], ["1555…37"], ["28444"], ["1555…88"],
    ]  # fmt: skip
