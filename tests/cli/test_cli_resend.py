"""``postbacks resend``, ``drop``, ``account remove`` and ``--off ALL``: what cannot be taken back says first what it will do."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from events import EVENT
from helpers import environment, remove_account, set_account

from postbacks import accounts, keys, send_postback, send_postbacks
from postbacks.cli import main

pytestmark = pytest.mark.usefixtures("forked")

URL = "http://127.0.0.1:9999/"


def call(*args: str):
    return CliRunner().invoke(main, args)


def on_a_terminal(answer: str, *args: str) -> tuple[int, str]:
    """Run a command at a terminal, where somebody types an answer: its exit code and what the terminal showed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from postbacks.cli import main; main()", *args]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ) as process:
        os.close(theirs)
        os.write(ours, answer.encode())
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # Linux: the other side has ended
                break
            if not piece:
                break
            shown += piece
        code = process.wait(60)
    os.close(ours)
    return code, shown.decode()


@pytest.fixture
def dead(rig) -> None:
    """Seven dead of two accounts, an hour apart by group, and four of the kinds that are left."""
    set_account("acme", url=URL)
    set_account("other", url=URL)
    rows = [
        (f"{name}-{group}-{reason}", name, group, reason)
        for name, group in (("acme", "mt"), ("acme", "mo"), ("other", "mt"))
        for reason in ("refused", "status")
    ]
    rows += [
        ("stranger", "nobody", "mt", "unknown_account"),
        ("killer", "acme", "mt", "poison"),
        ("twin", "acme", "mt", "id_taken"),
        ("no-postback", "other", "", "unreadable"),
    ]
    for postback_id, account, group, reason in rows:
        fields = {
            "state": "dead",
            "account": account,
            "group": group,
            "url": URL,
            "reason": reason,
            "own": "0",
        }
        rig.client.hset(keys.record(postback_id), mapping=fields)
        rig.client.zadd(keys.DEAD, {postback_id: time.time() * 1000 - (7200_000 if group == "mo" else 0)})


def resend(*args: str):
    done = call("resend", "--all-dead", "--json", *args)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_the_dead_of_an_account_a_reason_or_a_time_are_sent_again_together(rig, dead):
    assert resend("--dry-run") == {"would_send": 7, "left": 3}
    assert resend("--account", "acme", "--since", "1h", "--reason", "refused", "--yes") == {
        "sent_again": 1, "left": 0,
    }  # fmt: skip
    assert rig.client.lrange(keys.lane("acme/mt"), 0, -1) == [b"acme-mt-refused"]
    assert resend("--account", "acme", "--yes") == {"sent_again": 3, "left": 2}
    assert resend("--since", "1h", "--yes") == {"sent_again": 2, "left": 4}
    left = {b"stranger", b"killer", b"twin", b"no-postback"}
    assert set(rig.client.zrange(keys.DEAD, 0, -1)) == left
    for wrong in ((), ("--all-dead", "one"), ("one", "--dry-run"), ("--all-dead", "--since", "soon")):
        assert call("resend", *wrong).exit_code == 2


def test_poison_and_taken_ids_are_sent_again_by_their_reason_alone_and_poison_alone_in_quarantine(rig, dead):
    assert resend("--reason", "id_taken", "--yes") == {"sent_again": 1, "left": 0}
    assert rig.client.lrange(keys.lane("acme/mt"), 0, -1) == [b"twin"]
    assert resend("--reason", "poison", "--yes") == {"sent_again": 1, "left": 0}
    assert rig.client.zrange(keys.QUARANTINE, 0, -1, withscores=True) == [(b"killer", 2.0)]
    assert rig.client.lrange(keys.lane("acme/mt"), 0, -1) == [b"twin"]


def test_many_are_sent_again_only_after_a_yes_and_each_accounts_count_is_shown_before(rig, dead):
    refused = call("resend", "--all-dead")
    assert (refused.exit_code, "no terminal to ask at: say --yes" in refused.stderr) == (2, True)
    code, shown = on_a_terminal("n\n", "resend", "--all-dead")
    assert code == 1
    assert rig.client.zcard(keys.DEAD) == 10
    lines = [line.split() for line in shown.splitlines()]
    assert ["acme", "4"] in lines
    assert ["other", "3"] in lines
    assert "1 of accounts that are not known stay dead" in shown
    assert "2 stay dead that only --reason poison or --reason id_taken selects" in shown
    code, shown = on_a_terminal("y\n", "resend", "--all-dead")
    assert (code, "6 dead postbacks wait to be sent again" in shown) == (0, True)
    assert rig.client.zcard(keys.DEAD) == 4


def test_one_that_was_skipped_or_of_an_account_that_is_known_by_now_is_sent_again_by_its_id(rig):
    set_account("acme", url=URL, off=frozenset({"SUB"}))
    skipped, unknown = send_postback.delay("acme", EVENT).id, send_postback.delay("nobody", EVENT).id
    rig.tick()
    set_account("acme", url=URL)
    assert call("resend", skipped).exit_code == 0
    refused = call("resend", unknown)
    assert (refused.exit_code, "account nobody is not known; set it first" in refused.stderr) == (1, True)
    set_account("nobody", url=URL)
    assert call("resend", unknown).exit_code == 0
    assert {rig.record(postback_id).state for postback_id in (skipped, unknown)} == {"waiting"}
    again = call("resend", unknown)
    assert (again.exit_code, "only a dead or skipped one" in again.stderr) == (1, True)


def test_an_account_is_removed_only_after_a_yes_and_what_it_has_is_shown_before(rig):
    set_account("acme", url=URL)
    send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    refused = call("account", "remove", "acme")
    assert (refused.exit_code, "say --yes" in refused.stderr) == (2, True)
    code, shown = on_a_terminal("n\n", "account", "remove", "acme")
    assert (code, "Account acme: 3 wait, 0 are being sent or wait for a resend, 0 are dead." in shown) == (
        1,
        True,
    )
    assert accounts.redis_accounts().get("acme") is not None
    code, shown = on_a_terminal("y\n", "account", "remove", "acme")
    assert (code, "Account acme is removed." in shown) == (0, True)
    assert accounts.redis_accounts().get("acme") is None


def test_an_account_that_wants_nothing_is_set_with_off_all_and_its_events_are_skipped(rig):
    assert call("account", "set", "quiet", "--off", "ALL").exit_code == 0
    result = send_postback.delay("quiet", EVENT)
    rig.tick()
    assert (rig.record(result.id).state, rig.record(result.id).reason) == ("skipped", "origin_off")
    set_account("acme", url=URL)
    assert call("account", "set", "acme", "--off", "ALL").exit_code == 0
    acme = accounts.redis_accounts().get("acme")
    assert acme is not None
    assert (acme.url, len(acme.off)) == (URL, 7)
    remove_account("acme")


def dropped(*args: str):
    done = call("drop", "--dead", "--json", *args)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_dead_postbacks_of_an_account_or_an_age_are_dropped_and_nothing_else(rig, dead):
    """The index, the record and what it was counted with go; what is no longer dead, or died again, stays."""
    set_account("acme", url=URL)
    waits = send_postback.delay("acme", EVENT).id
    rig.tick()
    bytes_before = int(rig.client.get(keys.LEDGER_BYTES))
    rig.client.hset(keys.record("acme-mo-refused"), "bytes", 700)
    rig.client.incrby(keys.LEDGER_BYTES, 700)
    assert dropped("--older", "1h", "--dry-run") == {"would_drop": 2}
    assert rig.client.zcard(keys.DEAD) == 10
    assert dropped("--account", "other", "--older", "1h", "--yes") == {"dropped": 0}
    assert dropped("--account", "acme", "--older", "1h", "--yes") == {"dropped": 2}
    assert rig.client.exists(keys.record("acme-mo-refused")) == 0
    assert int(rig.client.get(keys.LEDGER_BYTES)) == bytes_before
    assert dropped("--account", "other", "--yes") == {"dropped": 3}
    left = {b"acme-mt-refused", b"acme-mt-status", b"stranger", b"killer", b"twin"}
    assert set(rig.client.zrange(keys.DEAD, 0, -1)) == left
    assert rig.client.hget(keys.TOTALS, "asked_dropped") == b"5"
    assert rig.record(waits).state == "waiting"
    now_ms = int(time.time() * 1000)
    assert rig.scripts.replay("acme-mt-status") == "waiting"
    rig.client.zadd(keys.DEAD, {"acme-mt-refused": now_ms + 5000})  # given up again since it was chosen
    assert rig.scripts.drop(now_ms, "", ["acme-mt-refused", "acme-mt-status", "unheard-of"]) == 0
    assert rig.scripts.drop(now_ms, "other", ["killer"]) == 0


def test_the_dead_are_dropped_only_after_a_yes_and_it_is_logged(rig, dead):
    refused = call("drop", "--dead")
    assert (refused.exit_code, "no terminal to ask at: say --yes" in refused.stderr) == (2, True)
    assert (call("drop", "--yes").exit_code, call("drop", "--dead", "--older", "soon").exit_code) == (2, 2)
    code, shown = on_a_terminal("n\n", "drop", "--dead", "--account", "acme")
    assert (code, "Drop 6 dead postbacks? They cannot be sent again." in shown) == (1, True)
    assert ["acme", "6"] in [line.split() for line in shown.splitlines()]
    assert rig.client.zcard(keys.DEAD) == 10
    code, shown = on_a_terminal("y\n", "drop", "--dead", "--account", "acme")
    assert (code, "6 dead postbacks are dropped." in shown) == (0, True)
    assert 'ledger.dropped account=acme postbacks=6 detail="dead postbacks were dropped by hand"' in shown
    assert rig.client.zcard(keys.DEAD) == 4


def test_the_dead_are_dropped_on_a_full_broker(own_broker):
    """They are what fills it, and nothing else may help."""
    with environment(POSTBACKS_BROKER_URL=own_broker.url), own_broker.client() as client:
        client.hset(keys.record("one"), mapping={"state": "dead", "account": "acme", "bytes": 1})
        client.zadd(keys.DEAD, {"one": 1})
        client.config_set("maxmemory", 1)
        assert dropped("--yes") == {"dropped": 1}
        assert client.zcard(keys.DEAD) == 0


def sentences(done) -> list[str]:
    """Return what a command has said, but that no recorder copies the journal."""
    return [line for line in done.stderr.splitlines() if not line.startswith("(journal: ")]


def test_several_ids_are_sent_again_with_a_sentence_each_from_the_arguments_or_standard_input(rig, dead):
    both = call("resend", "acme-mt-refused", "acme-mt-status", "acme-mt-refused")
    assert (both.exit_code, sentences(both)) == (
        0,
        [
            "Postback acme-mt-refused waits to be sent again.",
            "Postback acme-mt-status waits to be sent again.",
        ],
    )
    lines = "other-mt-refused\n\nstranger\r\nacme-mt-status\n"
    piped = CliRunner().invoke(main, ["resend", "-", "--json"], input=lines)
    assert (piped.exit_code, json.loads(piped.stdout)) == (1, {"sent_again": 1, "left": 2})
    sent, nowhere, waits, summary = sentences(piped)
    assert sent == "Postback other-mt-refused waits to be sent again."
    assert "account nobody is not known" in nowhere
    assert "acme-mt-status is waiting; only a dead or skipped one" in waits
    assert summary == "Error: 2 of 3 are not sent again."
    nothing = CliRunner().invoke(main, ["resend", "-"], input="\n")
    assert (nothing.exit_code, nothing.stderr) == (0, "Standard input has no id: nothing is done.\n")
    many = "\n".join([f"nobody-{number}" for number in range(30)] + ["acme-mo-refused"])
    asked = CliRunner().invoke(main, ["resend", "-"], input=many)
    assert (asked.exit_code, "say --yes" in asked.stderr) == (2, True)
    assert "say --yes" in CliRunner().invoke(main, ["cancel", "-"], input=many).stderr
    summed = CliRunner().invoke(main, ["resend", "-", "--yes"], input=many)
    *each, sent, summary = sentences(summed)
    assert len(each) == 20
    assert sent == "1 postback waits to be sent again."
    assert summary == "Error: 30 of 31 are not sent again."


def test_several_ids_are_cancelled_with_a_sentence_each(rig):
    set_account("acme", url=URL)
    ids = send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    assert sentences(call("cancel", ids[0])) == [f"Postback {ids[0]} is cancelled."]
    done = CliRunner().invoke(main, ["cancel", "-", "--json"], input="\n".join([*ids, "unheard-of"]))
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"cancelled": 4, "left": 0})
    assert {rig.record(postback_id).state for postback_id in ids} == {"cancelled"}
