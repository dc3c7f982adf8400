"""A postback that has left the broker: ``show`` finds it in the history, and ``resend`` puts the same bytes back."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner
from events import MT
from helpers import check_places, environment, remove_account, set_account
from sqlalchemy import text

from postbacks import keys, send_postback
from postbacks.broker import client as broker_client
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.history import copies_of
from postbacks.history.engine import reader
from postbacks.history.feed import Feed
from postbacks.history.transactions import writing
from postbacks.settings import load

REVEAL = ("--reveal", "--why", "a test")


def call(*args: str):
    return CliRunner().invoke(main, args, prog_name="postbacks")


class World:
    """An account whose receiver refuses, and a history that a recorder would have written."""

    def __init__(self, rig, writer, database, receiver, verdict) -> None:
        self.rig, self.writer, self.database = rig, writer, database
        self.receiver, self.verdict = receiver, verdict

    def record(self, *postback_ids: str) -> None:
        """Copy records into the history."""
        rows = [
            (postback_id, self.rig.client.hgetall(keys.record(postback_id))) for postback_id in postback_ids
        ]
        self.writer.write(rows, recorded_id="1-1", recorded_ms=1_790_000_000_000)

    def dead(self) -> str:
        """Let a postback die after two POSTs, and leave the broker for the history."""
        postback_id = send_postback.delay("acme", MT).id
        for _ in range(2):
            self.rig.tick()
            self.rig.deliver()
            self.rig.advance(301)
        self.record(postback_id)
        assert self.rig.scripts.drop(2**53, "", [postback_id]) == 1
        return postback_id


@pytest.fixture
def world(rig, writer, database, database_url):
    verdict = [500]
    with (
        environment(POSTBACKS_MAX_RESENDS="1", POSTBACKS_HISTORY_URL=database_url),
        Receiver(lambda _: Answer(verdict[0], b"oops")) as receiver,
    ):
        rig.settings = load()
        set_account("acme", url=receiver.url("/in"))
        yield World(rig, writer, database, receiver, verdict)
        reader().dispose()


def test_show_finds_it_in_the_history_whole(world):
    postback_id = world.dead()
    shown = call("show", postback_id)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[:2] == [f"postback      {postback_id}", "state         dead: answered 500; only 200 counts"]
    assert any(re.fullmatch(r"found in      history, recorded until 2026-.*Z", line) for line in lines)
    assert [line.split()[0] for line in lines[-2:]] == ["1", "2"]
    assert re.search(
        r"answered 500; only 200 counts 'oops' \(connect [\d,]+ ms, wait [\d,]+ ms, .*to 127\.0\.0\.1\)$",
        lines[-2],
    )
    public = json.loads(call("show", postback_id, "--json").stdout)
    assert (public["state"], public["source"], len(public["attempts"])) == ("dead", "history", 2)
    first = public["attempts"][0]
    assert (sum(first["phases"].values()), first["address"]) == (first["elapsed_ms"], "127.0.0.1")
    assert (public["recorded_until"], public["other_acceptances"]) == ("2026-09-21T14:13:20.000Z", [])
    assert call("show", postback_id, "--xml", *REVEAL).stdout_bytes == world.receiver.received[0].body
    assert f"'Postback-Id: {postback_id}'" in call("show", postback_id, "--curl", *REVEAL).stdout


def turn_the_feed_on(client) -> Feed:
    """Turn the feed on, with nothing to be made up for."""
    feed = Feed(client)
    feed.register()
    feed.note_resynced(*feed.begin_resync())
    return feed


def add_an_old_change(client) -> None:
    """Let the feed have an entry of long ago, which is not recorded."""
    client.delete(keys.CHANGES)
    client.xadd(keys.CHANGES, {"ids": "somebody"}, id="1-1")


def test_resend_puts_the_same_bytes_back_and_its_row_goes_on(world):
    turn_the_feed_on(world.rig.client)
    postback_id = world.dead()
    world.verdict[0] = 200
    done = call("resend", postback_id)
    assert (done.exit_code, done.stderr) == (
        0,
        f"Postback {postback_id} waits to be sent again, from the history: the broker did not have it any more.\n",
    )
    assert check_places(world.rig.client) == {"waiting": 1}
    world.rig.deliver()
    first, _, last = world.receiver.received
    assert (last.body, last.attempt, last.created, last.sequence) == (
        first.body,
        3,
        first.created,
        first.sequence,
    )
    world.record(postback_id)
    (copy,) = copies_of(postback_id, engine=world.database).copies
    assert (copy.record.state, [attempt.number for attempt in copy.record.attempts]) == (
        "delivered",
        [1, 2, 3],
    )


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda feed: feed.want_resync("gap"),
            "a resync is due (changes were dropped before they were read)",
        ),
        (lambda feed: feed.turn_off("asked"), "its feed is off"),
        (lambda feed: add_an_old_change(feed._client), " s behind"),
    ],
    ids=["gap", "off", "behind"],
)
def test_resend_from_a_history_that_may_not_know_the_latest_says_why(world, spoil, why):
    """The postback may have been sent again and delivered since: its customer may get it twice."""
    postback_id = world.dead()
    spoil(turn_the_feed_on(world.rig.client))
    done = call("resend", postback_id)
    assert done.exit_code == 0
    sent, doubt = done.stderr.splitlines()[:2]
    assert "waits to be sent again" in sent
    assert doubt.startswith("The history may not know the latest: ")
    assert why in doubt


def test_it_follows_its_account_and_its_own_url_stays(world):
    postback_id = world.dead()
    with Receiver() as elsewhere:
        set_account("acme", url=elsewhere.url())
        own = send_postback.apply_async(("acme", MT), {"url": world.receiver.url("/own?key=s3cret")}).id
        for _ in range(2):
            world.rig.tick()
            world.rig.deliver()
            world.rig.advance(301)
        world.record(own)
        world.rig.scripts.drop(2**53, "", [own])
        for each in (postback_id, own):
            assert call("resend", each).exit_code == 0
        world.rig.deliver()
        assert [post.postback_id for post in elsewhere.received] == [postback_id]
    assert world.receiver.received[-1].path == "/own?key=s3cret"
    assert world.receiver.received[-1].attempt == 3


def test_the_newest_acceptance_is_shown_and_names_the_others(world):
    postback_id = world.dead()
    world.verdict[0] = 200
    assert send_postback.apply_async(("acme", MT), task_id=postback_id).id == postback_id
    world.rig.tick()
    world.rig.deliver()
    shown = call("show", postback_id).stdout
    assert "\nstate         delivered\n" in shown
    assert re.search(r"\nalso accepted 20\S+Z \(dead\)\n", shown)
    world.record(postback_id)
    world.rig.client.flushdb()
    set_account("acme", url=world.receiver.url())
    public = json.loads(call("show", postback_id, "--json").stdout)
    assert (public["state"], public["source"]) == ("delivered", "history")
    assert [other["state"] for other in public["other_acceptances"]] == ["dead"]
    refused = call("resend", postback_id)
    assert (refused.exit_code, "is delivered; only a dead or skipped one" in refused.stderr) == (1, True)


def test_what_cannot_be_put_back_is_refused_with_a_sentence(world):
    postback_id = world.dead()
    remove_account("acme")
    refused = call("resend", postback_id)
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: Postback {postback_id} has nowhere to go: account acme was not known; set the account first.\n",
    )
    set_account("acme", url=world.receiver.url())
    with writing(world.database) as connection:
        connection.execute(text("DELETE FROM documents"))
    forms = (("--xml", *REVEAL), ("--curl", *REVEAL))
    for command in (("resend", postback_id), *(("show", postback_id, *form) for form in forms)):
        refused = call(*command)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "its document was kept for POSTBACKS_HISTORY_DOCUMENTS_DAYS" in refused.stderr
    assert "its document was kept for" in call("show", postback_id).stdout
    assert world.rig.client.exists(keys.record(postback_id)) == 0


def test_an_id_that_nobody_has_says_how_far_the_history_sees(world):
    nobody = call("show", "nobody")
    assert (nobody.exit_code, "The history has no postback yet." in nobody.stderr) == (1, True)
    world.dead()
    for command in ("show", "resend"):
        assert call(command, "nobody").exit_code == 1
    nobody = call("show", "nobody")
    assert re.search(
        r"or never existed.*\. The history does not have it either; it goes back to \S+:00:00.000Z and has recorded "
        r"until 2026-09-21T14:13:20.000Z\.\n",
        nobody.stderr,
    )
    with environment(POSTBACKS_HISTORY_URL=""):
        assert "No history is set (POSTBACKS_HISTORY_URL)" in call("show", "nobody").stderr
        assert "No history is set" in call("resend", "nobody").stderr


def test_the_history_answers_while_the_broker_is_away(world, monkeypatch):
    postback_id = world.dead()
    away = broker_client.client_for("redis://127.0.0.1:1/0", 1.0)
    monkeypatch.setattr("postbacks.operate.lookup.client", lambda: away)
    shown = call("show", postback_id)
    assert (shown.exit_code, "state         dead" in shown.stdout) == (0, True)
    assert "does not answer" in shown.stderr
    assert "What follows is the history's." in shown.stderr
    nobody = call("show", "nobody")
    assert (nobody.exit_code, "does not answer" in nobody.stderr) == (2, True)


def test_the_forms_of_show_exclude_each_other():
    assert "exclude each other" in call("show", "x", "--xml", "--curl").stderr
