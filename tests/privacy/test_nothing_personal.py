"""A small real run over events of every row: no command, log line or task event has a number, an address or a text."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from events import examples
from helpers import Rig, environment, set_account
from recording import make_recorder, no_waiting, settle
from wire import Wire

from postbacks import keys, send_postback
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.errors import RevealRefused
from postbacks.flower_events.publisher import publisher
from postbacks.history.engine import reader
from postbacks.history.values import read_tags
from postbacks.logs import JsonFormatter, TextFormatter
from postbacks.operate.lookup import look_up
from postbacks.operate.story import story
from postbacks.privacy.tags import EMAIL, FILE, NUMBER, REFERENCE, TEXT, kind_of, tag_of_person
from postbacks.settings import load

#: Values that belong to a person, by the kind of the tag that has them; none is in another.
PERSONAL = {
    NUMBER: "15557340{:03}",
    EMAIL: "person{}.private@example.com",
    TEXT: "private words {} & <more>",
    REFERENCE: "person{}.reference@example.org",
    FILE: "https://cdn.example/private-{}.jpg",
}
#: Number, address and text in what a receiver answers, in the URL of a call and in an event that is refused.
ANSWERED, CALLED, REFUSED = "+1 (555) 734-0997", "15557340998", "+15557340999"
#: TRACKINGID of one of the events.
TRACKED = "T105"
MARKS = re.compile(r"5557340\d{3}|person\d|private|734-0997|\.reference@|pri…te")


def personal(tag: str, number: int) -> object:
    """Return a value of a tag that is some person's; None for a tag that has none."""
    form = PERSONAL.get(kind_of(tag))
    return form and form.format(number)


def events() -> list[dict[str, object]]:
    """Return an event of every row with every tag, each about a person of its own."""
    made = []
    for number, event in enumerate(examples().values(), start=100):
        values = {tag: personal(tag, number) or value for tag, value in event.items()}
        if "CONTENT" in values:
            values["CONTENT"] = {"FILE": [personal("FILE", number)]}
        made.append(values | ({"TRACKINGID": f"T{number}"} if "TRACKINGID" in values else {}))
    return made


class Log(logging.Handler):
    """Lines of all loggers, in both forms."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines += [TextFormatter().format(record), JsonFormatter().format(record)]


class World:
    """Postbacks that were sent and refused, and all that was logged and published of them."""

    def __init__(self, rig: Rig, ids: list[str], refused: str, log: Log, wire: Wire) -> None:
        self.rig, self.ids, self.refused = rig, ids, refused
        self.log, self.wire = log, wire


@pytest.fixture
def world(broker, rig, tmp_path) -> Iterator[World]:
    """Half delivered, half dead behind a receiver that repeats the document, one to a URL of its own, one unreadable."""
    history_url = f"sqlite:///{tmp_path}/history.db"
    log, root = Log(), logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    publisher.configure("worker@here", "postbacks.events")
    publisher.switch(True)
    publisher.announce()
    wire = Wire(broker)

    def answer(post) -> Answer:
        text = f"cannot reach {ANSWERED}: ".encode() + post.body[:200]
        return Answer(
            503 if post.path.startswith("/bad") else 200, text, {"content-type": "text/xml; charset=utf-8"}
        )

    with (
        environment(POSTBACKS_HISTORY_URL=history_url, POSTBACKS_MAX_RESENDS="0", POSTBACKS_FLOWER_SHARE="1"),
        pytest.MonkeyPatch.context() as patch,
        Receiver(answer) as receiver,
    ):
        no_waiting(patch)
        rig.settings = load()
        recorder = make_recorder(rig.client, history_url)
        settle(recorder, rig.client)
        set_account("good", url=receiver.url("/good"))
        set_account("bad", url=receiver.url("/bad"))
        ids = [send_postback.delay(account, event).id for event in events() for account in ("good", "bad")]
        own_url = receiver.url(f"/bad/{CALLED}?to={CALLED}")
        ids.append(send_postback.delay("good", events()[0], url=own_url).id)
        refused = unreadable(rig, events()[0] | {"MOBILE": REFUSED, "NEWTAG": "private"})
        rig.tick()
        rig.deliver()
        publisher.flush()
        settle(recorder, rig.client)
        recorder.close()
        yield World(rig, ids, refused, log, wire)
        reader(load()).dispose()
    publisher.switch(False)
    wire.close()
    root.removeHandler(log)
    root.setLevel(level)


def unreadable(rig: Rig, event: dict[str, object]) -> str:
    """Put a message into the queue that no caller of ours would send; return its id."""
    postback_id = send_postback.delay("good", events()[0]).id
    raw = rig.client.lpop(keys.QUEUE)
    rig.client.lpush(keys.QUEUE, altered(raw, event))
    return postback_id


def altered(raw: bytes, event: dict[str, object]) -> bytes:
    """Return a message with another event."""
    message = json.loads(raw)
    args, kwargs, embed = json.loads(base64.b64decode(message["body"]))
    body = json.dumps([[args[0], event], kwargs, embed])
    message["body"] = base64.b64encode(body.encode()).decode()
    return json.dumps(message).encode()


def call(*args: str):
    """Run a command."""
    return CliRunner().invoke(main, args, prog_name="postbacks")


def test_nothing_personal_is_shown_logged_or_published(world):
    """Each command that looks, in each form, from the broker and from the history."""
    dead = {postback_id for postback_id in world.ids if world.rig.record(postback_id).state == "dead"}
    assert len(dead) == len(world.ids) // 2 + 1
    tracking_ids = [str(event["TRACKINGID"]) for event in events() if "TRACKINGID" in event]
    commands = [
        *(("show", postback_id) for postback_id in (*sorted(dead), world.ids[0], world.refused)),
        *(("show", postback_id, "--json") for postback_id in (*world.ids[::7], world.ids[-1], world.refused)),
        *(("story", value) for value in (*tracking_ids, world.ids[0])),
        *(("story", value, "--json") for value in (*tracking_ids[::5], world.ids[-1])),
        *(("list", "--limit", "200", *form) for form in ((), ("--json",), ("--csv",), ("--dead",), ("--dead", "--json"))),
        *(("list", "--limit", "200", "--person", *form) for form in ((), ("--json",), ("--csv",), ("--dead",))),
        *(("list", "--opt-outs", *form) for form in ((), ("--json",), ("--csv",), ("--person",), ("--person", "--json"))),
        *((command, "--account", "bad", "--dead", "--dry-run", *form) for command in ("resend",) for form in ((), ("--json",))),
        ("jobs",), ("incidents",), ("incidents", "--json"), ("journal",), ("journal", "--json"),
        ("stats",), ("stats", "--by", "host", "--json"), ("health", "--json"), ("doctor",), ("doctor", "--json"),
        ("history", "status"), ("history", "status", "--json"), ("account", "list"), ("account", "show", "bad"),
        ("cancel", world.refused), ("cancel", world.ids[0]), ("resend", world.refused), ("resend", world.ids[0]),
    ]  # fmt: skip
    shown = {command: call(*command) for command in commands}
    with environment(POSTBACKS_HISTORY_URL=""):
        shown |= {command: call(*command) for command in (
            ("list", "--dead"), ("list", "--dead", "--json"), ("list", "--dead", "--person"),
        )}  # fmt: skip
    ran = {
        command: result.exit_code
        for command, result in shown.items()
        if command[0] in {"show", "list", "story"}
    }
    assert set(ran.values()) == {0}, ran
    assert {
        command: MARKS.findall(result.output)
        for command, result in shown.items()
        if MARKS.search(result.output)
    } == {}
    reveal = ("--reveal", "--why", "to see that there is something to mask")
    assert all("734-0997" in call("show", one, "--json", *reveal).stdout for one in [*dead][:3])
    assert any("postback.dead account=bad" in line for line in world.log.lines)
    assert any("intake.unreadable" in line for line in world.log.lines)
    assert [line for line in world.log.lines if MARKS.search(line)] == []
    assert len(world.wire.of) >= len(world.ids)
    assert [body for body in world.wire.raw if MARKS.search(body)] == []


def test_two_rows_of_one_person_have_one_suffix(world):
    """The same number in a document as FROM and as TO, of two accounts."""
    shown = [
        json.loads(call("show", postback_id, "--json").stdout)["document"] for postback_id in world.ids[:2]
    ]
    assert shown[0] == shown[1]
    assert re.search(r"<MOBILE>1555…00 ·[0-9a-z]{4}</MOBILE>", shown[0])
    assert "document      masked; --reveal --why TEXT shows it" in call("show", world.ids[0]).stdout


def test_to_reveal_wants_a_reason_and_is_written_to_the_journal(world):
    """An entry says who has revealed which one, and why; nothing is written where nothing is found."""
    postback_id = world.ids[0]
    for form in ("--xml", "--curl"):
        refused = call("show", postback_id, form)
        assert (refused.exit_code, "--reveal --why TEXT" in refused.stderr, refused.stdout) == (2, True, "")
    for wrong in (("--reveal",), ("--reveal", "--why", " "), ("--why", "ticket 7")):
        assert call("show", postback_id, *wrong).exit_code == 2
    assert world.rig.client.xlen(keys.JOURNAL) == 0
    reveal = ("--reveal", "--why", "ticket 4711")
    assert call("show", "nobody", *reveal).exit_code == 1
    assert world.rig.client.xlen(keys.JOURNAL) == 0
    with environment(POSTBACKS_USER="ann"):
        revealed = [
            call("show", postback_id, *form, *reveal) for form in ((), ("--json",), ("--xml",), ("--curl",))
        ]
    assert all("15557340100" in result.stdout for result in revealed)
    assert call("story", TRACKED, *reveal).exit_code == 0
    entries = [json.loads(fields[b"entry"]) for _, fields in world.rig.client.xrange(keys.JOURNAL)]
    assert [(entry["by"], entry["action"], entry["subject"], entry["why"]) for entry in entries][:4] == [
        ("ann", "reveal", postback_id, "ticket 4711")
    ] * 4
    assert [(entry["action"], entry["subject"]) for entry in entries[4:]] == [("reveal", TRACKED)]


def persons(*args: str) -> dict[str, str]:
    """List the persons of postbacks by their ids."""
    shown = call("list", "--limit", "200", "--person", "--json", *args)
    assert shown.exit_code == 0, shown.output
    return {row["id"]: row.get("person", "") for row in map(json.loads, shown.stdout.splitlines())}


def test_a_list_reveals_persons_once_the_journal_says_so(world, monkeypatch):
    """Write one entry a list, with its filters but no number; none where nothing is found."""
    reveal = ("--reveal", "--why", "ticket 4711")
    masked, revealed = persons(), persons(*reveal)
    assert revealed == {
        postback_id: read_tags(record.xml).get(tag_of_person(record.origin), "")
        for postback_id in masked
        if (record := world.rig.record(postback_id))
    }
    assert {bool(masked[postback_id]) == bool(person) for postback_id, person in revealed.items()} == {True}
    about = [event for event in events() if tag_of_person(str(event["ORIGIN"])) in event]
    assert sum(bool(MARKS.search(person)) for person in revealed.values()) == 2 * len(about) + 1
    assert persons("--account", "nobody", *reveal) == {}
    assert persons("--account", "good", "--number", "+1 555 734 0100", *reveal).keys() <= revealed.keys()
    journal = [json.loads(fields[b"entry"]) for _, fields in world.rig.client.xrange(keys.JOURNAL)]
    assert [(entry["action"], entry["subject"], entry["why"]) for entry in journal] == [
        ("reveal", "list", "ticket 4711")
    ] * 2
    assert journal[1]["details"]["account"] == "good"
    filters = json.loads(journal[1]["details"]["filters"])
    assert (filters["account"], filters["number"][:9]) == ("good", "1555…00 ·")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("postbacks.operate.journal.write", fail)
    for form in ((), ("--json",), ("--csv",), ("--opt-outs", "--csv")):
        shown = call("list", "--person", *form, *reveal)
        assert (shown.exit_code, MARKS.search(shown.output)) == (1, None)


def test_programs_reveal_with_a_reason_as_well(world):
    """The functions that give people documents."""
    postback_id = world.ids[0]
    masked, unmasked = look_up(postback_id).record, look_up(postback_id, reveal="ticket 4711").record
    assert b"15557340100" not in masked.xml
    assert unmasked == world.rig.record(postback_id)
    with pytest.raises(RevealRefused, match="reason"):
        look_up(postback_id, reveal="")
    with pytest.raises(RevealRefused, match="reason"):
        story(TRACKED, reveal=" ")
    assert story(TRACKED).messages[0].number != story(TRACKED, reveal="ticket 4711").messages[0].number
