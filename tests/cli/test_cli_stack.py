"""The command line beside a real worker and a real beat: sent, shown, listed, sent again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import pytest
from events import examples
from helpers import ended, eventually, running

from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Receiver, dead_port

pytestmark = pytest.mark.usefixtures("forked")

POSTBACKS = str(Path(sys.executable).with_name("postbacks"))
EVENT = examples()["SMS_MO", "N211"]
DOCUMENT = render(parse_event(EVENT))


class Desk:
    """A terminal with a stack behind it, and a receiver that answers by the path it is asked at."""

    def __init__(self, broker: EmbeddedBroker, receiver: Receiver) -> None:
        self.broker = broker
        self.receiver = receiver

    def call(self, *args, text=""):
        """Type a command."""
        return subprocess.run(
            [POSTBACKS, *args],
            env={**os.environ, "POSTBACKS_BROKER_URL": self.broker.url},
            input=text,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def send(self, *args, event=EVENT):
        """Send one event."""
        return self.call("send", "acme", "-", *args, text=json.dumps(event))

    @cached_property
    def dead(self) -> str:
        """A postback that is dead."""
        with dead_port() as port:
            one = self.send("--url", f"http://127.0.0.1:{port}/").stdout.strip()
            with self.broker.client() as client:
                assert ended(client, one).state == "dead"
        return one


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """The stack of this module, with one resend after 0.1 s; a path /S answers with the status S, /S/slow after 6 s."""
    folder = tmp_path_factory.mktemp("desk")
    with (
        Receiver(
            lambda post: Answer(int(post.path[1:4]), delay_s=6 if post.path.endswith("/slow") else 0)
        ) as receiver,
        EmbeddedBroker() as broker,
        running(broker, folder, env={"POSTBACKS_RETRY_COUNTDOWN_S": "0.1", "POSTBACKS_MAX_RESENDS": "1"}),
    ):
        made = Desk(broker, receiver)
        assert made.call("account", "set", "acme", "--url", receiver.url("/200")).returncode == 0
        yield made


def test_send_wait_is_0_when_all_are_delivered_with_the_ids_alone_on_stdout(desk):
    lines = "\n".join(json.dumps({**EVENT, "TEXT": f"number {number}"}) for number in range(3))
    done = desk.call("send", "acme", "-", "--wait", "20", text=lines)
    ids = done.stdout.splitlines()
    assert done.returncode == 0
    assert done.stderr.splitlines() == [f"{one} delivered after 1 attempt" for one in ids]
    got = desk.receiver.by_id()
    assert [[each.tags["TEXT"] for each in got[one]] for one in ids] == [
        ["number 0"],
        ["number 1"],
        ["number 2"],
    ]


def test_what_is_posted_is_what_render_prints(desk):
    one = desk.send("--wait", "20").stdout.strip()
    assert [each.body for each in desk.receiver.by_id()[one]] == [DOCUMENT]
    assert desk.call("show", one, "--xml", "--reveal", "--why", "a test").stdout.encode() == DOCUMENT


def test_the_same_id_sent_again_is_one_postback(desk):
    first = desk.send("--id", "order-17", "--wait", "20")
    again = desk.send("--id", "order-17", "--wait", "20")
    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout == again.stdout == "order-17\n"
    assert "order-17 is known already (delivered)" in again.stderr
    assert len(desk.receiver.by_id()["order-17"]) == 1


def test_send_wait_is_1_when_one_is_dead_and_json_says_which(desk):
    done = desk.send("--url", desk.receiver.url("/204"), "--wait", "30", "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said.pop("id")
    assert said == {"state": "dead", "attempts": 2, "outcome": "status", "status": 204}
    assert "Error: 0 of 1 delivered.\n" in done.stderr


def test_show_json_has_the_promised_shape(desk):
    done = desk.send("--url", desk.receiver.url("/500"), "--wait", "30")
    one = done.stdout.strip()
    shown = json.loads(desk.call("show", one, "--json").stdout)
    assert {"id", "account", "group", "origin", "code", "url", "state", "attempts", "next_at"} <= shown.keys()
    assert {
        name: shown[name] for name in ("id", "account", "group", "origin", "code", "state", "next_at")
    } == {
        "id": one,
        "account": "acme",
        "group": "mo",
        "origin": "SMS_MO",
        "code": "N211",
        "state": "dead",
        "next_at": None,
    }
    assert [each["number"] for each in shown["attempts"]] == [1, 2]
    for attempt in shown["attempts"]:
        assert {"number", "at", "outcome", "status", "elapsed_ms"} <= attempt.keys()
        assert (attempt["outcome"], attempt["status"]) == ("status", 500)


def test_show_prints_a_header_and_a_line_for_every_attempt(desk):
    one = desk.dead
    lines = desk.call("show", one).stdout.splitlines()
    assert lines[0].split() == ["postback", one]
    assert lines[1].startswith("state         dead: ")
    assert [line.split()[0] for line in lines if "refused " in line and line[0].isdigit()] == ["1", "2"]


def test_show_says_since_when_an_attempt_is_open_and_which_worker_has_it(desk):
    one = desk.send("--url", desk.receiver.url("/200/slow")).stdout.strip()
    eventually(lambda: one in desk.receiver.by_id(), what="the POST")

    def opened() -> list[str]:
        return [line for line in desk.call("show", one).stdout.splitlines() if line.startswith("open ")]

    (line,) = eventually(opened, what="the note that its POST is open")
    words = r"open +attempt 1 since \S+Z \(\d\.\d s\), worker worker1@\S+, loop [0-9a-f]{12}"
    assert re.fullmatch(words, line), line
    with desk.broker.client() as client:
        assert ended(client, one).state == "delivered"
    assert "open" not in desk.call("show", one).stdout


def test_the_dead_are_listed_sent_again_and_only_once(desk):
    one = desk.dead
    listed = [json.loads(line) for line in desk.call("list", "--dead", "--json").stdout.splitlines()]
    assert listed[0]["id"] == one
    assert one in desk.call("list", "--dead", "--limit", "1").stdout
    assert desk.call("resend", one).returncode == 0
    with desk.broker.client() as client:
        record = eventually(lambda: (found := ended(client, one)).state == "dead" and found)
    assert len(record.attempts) == 4
    delivered = desk.send("--wait", "20").stdout.strip()
    refused = desk.call("resend", delivered)
    assert refused.returncode == 1
    assert (
        f"Postback {delivered} is delivered; only a dead or skipped one can be sent again." in refused.stderr
    )
    assert desk.call("cancel", delivered).returncode == 1
    assert delivered in desk.call("list").stdout


def test_an_unknown_postback_is_1(desk):
    for command in ("show", "resend"):
        done = desk.call(command, "nope")
        assert (done.returncode, done.stdout) == (1, "")
        assert "The ledger has no postback nope" in done.stderr
        assert done.stderr.count("\n") == 1
