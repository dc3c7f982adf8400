"""``postbacks resend``, ``account remove`` and ``--off ALL``: what cannot be taken back says first what it will do."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from helpers import remove_account, set_account

from postbacks import accounts, keys, send_postback, send_postbacks
from postbacks.cli import main

EVENT = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}
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
