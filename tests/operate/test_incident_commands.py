"""``postbacks incidents`` and ``postbacks incident``, as typed in a terminal, and the same from Python."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from events import MT
from helpers import environment, set_account
from operate.incident_world import IncidentWorld

from postbacks import send_postback
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.errors import PostbacksError
from postbacks.operate import all_incidents, mute_incident, read_incident, unmute_incident


def call(*args: str):
    """Call the command in this process."""
    return CliRunner().invoke(main, args, prog_name="postbacks", env={"COLUMNS": "120"})


@pytest.fixture
def world(broker, tmp_path, monkeypatch):
    """System whose history the commands read, with an account whose receiver has failed for six minutes."""
    url = f"sqlite:///{tmp_path}/history.db"
    with environment(POSTBACKS_HISTORY_URL=url, POSTBACKS_USER="ann"):
        made = IncidentWorld(broker, url, monkeypatch)
        receiver = Receiver(lambda _: Answer(receiver.status))
        receiver.status = 503
        made.receiver = receiver
        with receiver:
            set_account("acme", url=receiver.url())
            send_postback.delay("acme", MT)
            made.work()
            made.watch(6, every_s=180)
            yield made
        made.close()


def test_incidents_are_listed_and_shown_with_what_to_do_and_what_was_told(world):
    listed = call("incidents", "--open")
    assert listed.exit_code == 0, listed.output
    assert "it answers 503; every attempt has failed since" in " ".join(listed.stdout.split())
    shown = call("incident", "show", "1")
    assert "incident   1, open\n" in shown.stdout
    assert "to do      The receiver failed: look at its log. `postbacks ping acme` tries it" in shown.stdout
    assert "opened: in the log alone (POSTBACKS_NOTICE_URL is not set)" in shown.stdout
    (line,) = call("incidents", "--json").stdout.splitlines()
    assert json.loads(line)["figures"]["waiting"] == 1
    whole = json.loads(call("incident", "show", "1", "--json").stdout)
    assert [notice["change"] for notice in whole["notices"]] == ["opened"]
    assert whole | {"notices": None} == json.loads(line) | {"notices": None}


def test_the_end_shows_the_command_that_resends_and_open_ones_alone_are_none(world):
    world.watch(25, every_s=300)
    world.receiver.status = 200
    send_postback.delay("acme", MT)
    world.watch(7)
    empty = call("incidents", "--open")
    assert (empty.stdout, empty.stderr) == ("", "No incident is open.\n")
    assert (
        "`postbacks incident show ID` has the command that sends again what died." in call("incidents").stderr
    )
    shown = call("incident", "show", "1").stdout
    assert (
        "to do      Send again what died: `postbacks resend --account acme --state dead --between 20" in shown
    )
    assert "incident   1, ended\n" in shown


def test_one_that_is_quiet_says_so_until_its_end(world):
    """The sentence stays as it was told: whoever reads it must see that the receiver may answer by now."""
    assert "ends       once nothing of it has stood for 5 min\n" in call("incident", "show", "1").stdout
    world.receiver.status = 200
    send_postback.delay("acme", MT)
    world.watch(3)
    shown = call("incident", "show", "1").stdout
    assert "incident   1, open, quiet\n" in shown
    assert "ends       once nothing of it has stood for 5 min, and has for 3 min\n" in shown
    assert "open, quiet" in call("incidents").stdout
    assert 180 <= json.loads(call("incidents", "--json").stdout)["quiet_s"] < 240
    world.watch(7)
    shown = call("incident", "show", "1").stdout
    assert "quiet" not in shown
    assert "ends  " not in shown
    assert "it answers 200 again, after " in shown
    assert "; nothing of it is dead\n" in shown


def test_a_mute_is_written_with_its_reason_and_its_end_and_taken_back(world, caplog):
    muted = call("incident", "mute", "1", "--until", "2h", "--reason", "they know, ticket 812")
    assert muted.exit_code == 0, muted.output
    assert muted.stderr.startswith("Nothing is told of incident 1 (127.0.0.1:")
    shown = call("incident", "show", "1").stdout
    assert "incident   1, muted\n" in shown
    assert "by ann: they know, ticket 812" in shown
    call("incident", "mute", "1", "--until", "2h", "--reason", "rang +15559876501")
    assert "by ann: rang 1555…01 ·" in call("incident", "show", "1").stdout
    assert call("incident", "unmute", "1").exit_code == 0
    assert "muted" not in call("incident", "show", "1").stdout


WRONG = [
    (["incident", "show", "99"], 1, "There is no incident 99; postbacks incidents lists all."),
    (["incident", "show", "9" * 30], 1, f"There is no incident {'9' * 30}; postbacks incidents lists all."),
    (["incident", "mute", "99", "--until", "2h"], 1, "There is no incident 99"),
    (["incident", "unmute", str(2**31)], 1, f"There is no incident {2**31}"),
    (["incident", "mute", "1", "--until", "yesterday"], 2, "yesterday"),
    (["incident", "mute", "1"], 2, "--until"),
    (["incident", "show", "x"], 2, "x"),
    (["incident", "mute", "1", "--until", "2h", "--reason", "x" * 501], 1, "500 are the most"),
]


def test_wrong_use_is_one_sentence(world):
    for args, code, sentence in WRONG:
        result = call(*args)
        assert result.exit_code == code, (args, result.output)
        assert sentence in result.stderr, args
        assert "Traceback" not in result.output


def test_without_a_history_the_command_says_what_to_set(broker):
    with environment(POSTBACKS_HISTORY_URL=""):
        result = call("incidents")
    assert result.exit_code == 2
    assert "set POSTBACKS_HISTORY_URL" in result.stderr


def test_python_has_the_same(world):
    (incident,) = all_incidents(open_only=True)
    muted = mute_incident(incident.id, until_ms=4_000_000_000_000, reason="they know", by="ann")
    assert (muted.mute_reason, muted.muted_by, muted.is_muted(0)) == ("they know", "ann", True)
    assert unmute_incident(incident.id, why="they do not").muted_until_ms is None
    assert [notice.change for notice in read_incident(incident.id).notices] == ["opened"]
    with pytest.raises(PostbacksError, match="has passed"):
        mute_incident(incident.id, until_ms=1)
