"""``postbacks list``: what it finds in the history and in the broker alone, in each form, and what it says beside."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest
from click.testing import CliRunner
from helpers import environment

from postbacks import keys
from postbacks.cli import main

URL = "https://hooks.example/in"
NO_HISTORY = "There is no history: these are postbacks that have ended, as the broker has them."


def call(*args, history=""):
    """Call ``postbacks list`` in this process, with or without a history."""
    with environment(POSTBACKS_HISTORY_URL=history):
        return CliRunner().invoke(main, ["list", *args], prog_name="postbacks")


def ids(shown):
    """Return the ids that were printed by ``-o id``."""
    assert shown.exit_code == 0, shown.output
    return shown.stdout.split()


# -- the broker alone ------------------------------------------------------------------------------


@pytest.fixture
def ended(rig):
    """Five postbacks that have ended, the first two of them dead: at 1, 2, … s of the hour before this one."""
    hour_ms = int(time.time()) // 3600 * 3_600_000 - 3_600_000
    rows = [
        ("a-refused", "dead", "acme", "refused"),
        ("b-status", "dead", "beta", "status"),
        ("a-delivered", "delivered", "acme", ""),
        ("b-skipped", "skipped", "beta", "origin_off"),
        ("a-cancelled", "cancelled", "acme", "revoked"),
    ]
    for number, (postback_id, state, account, reason) in enumerate(rows, start=1):
        ended_ms = hour_ms + number * 1000
        fields = {"state": state, "account": account, "group": "mo", "origin": "SMS_MO", "code": "N211", "url": URL,
                  "reason": reason, "created_ms": ended_ms - 500, "ended_ms": ended_ms}  # fmt: skip
        if state in {"dead", "delivered"}:
            note = {"number": 1, "at_ms": ended_ms - 100, "outcome": reason or "delivered", "elapsed_ms": 90}
            note |= {"refused": {"detail": "connection refused"}}.get(
                reason, {"status": 500 if reason else 200}
            )
            fields |= {"attempts": 1, "attempt:1": json.dumps(note)}
        rig.client.hset(keys.record(postback_id), mapping=fields)
        rig.client.zadd(keys.DEAD if state == "dead" else keys.DONE, {postback_id: ended_ms})
    return hour_ms


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ((), ["a-cancelled", "b-skipped", "a-delivered"]),
        (("--limit", "1"), ["a-cancelled"]),
        (("--dead",), ["b-status", "a-refused"]),
        (("--state", "dead", "--dead", "--account", "acme"), ["a-refused"]),
        (("--dead", "--reason", "status"), ["b-status"]),
        (("--state", "delivered"), ["a-delivered"]),
        (("--state", "skipped", "--account", "beta"), ["b-skipped"]),
        (("--account", "acme", "--limit", "1"), ["a-cancelled"]),
        (("--state", "dead", "--account", "nobody"), []),
    ],
    ids=" ".join,
)
def test_without_a_history_the_broker_says_what_has_ended(ended, args, found):
    shown = call(*args, "-o", "id")
    assert ids(shown) == found
    assert shown.stderr.startswith(f"{NO_HISTORY} For all, set POSTBACKS_HISTORY_URL (sqlite:////")
    assert "`postbacks history run`" in shown.stderr
    assert call(*(arg for arg in args if arg not in {"--limit", "1"}), "--count").stdout == (
        f"{len(found) if '--limit' not in args else {'--account': 2}.get(args[0], 3)}\n"
    )


def test_without_a_history_times_are_of_the_end(ended):
    from postbacks.cli.times import of_ms

    since, until = (of_ms(ended + ms).isoformat() for ms in (3000, 5000))
    shown = call("--between", since, until, "-o", "id")
    assert ids(shown) == ["b-skipped", "a-delivered"]  # the end is not part of it
    first, _, found = shown.stderr.splitlines()
    assert first == f"Ended from {since.replace('T', ' ')} to {until[11:]}."
    assert found == "2 postbacks."


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--number", "15552310137"), "Without a history --number chooses nothing, only --account, --state, --reason, --since"),
        (("--code", "N211", "--slower-than", "2s"), "Without a history --code and --slower-than choose nothing"),
        (("--cursor", "x"), "Without a history --cursor chooses nothing"),
        (("--state", "parked"), "Without a history there is no list of what is parked, only of cancelled, dead, delivered, skipped"),
        (("--state", "deadd"), "Without a history there is no state 'deadd', only cancelled, dead, delivered, skipped"),
    ],
)  # fmt: skip
def test_without_a_history_what_the_broker_cannot_say_is_refused_with_how_to_switch_it_on(
    ended, args, sentence
):
    shown = call(*args)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.startswith(f"Error: {sentence}")
    assert (
        "set POSTBACKS_HISTORY_URL (sqlite:////directory/history.db) and run `postbacks history run`"
        in shown.stderr
    )
    assert shown.stderr.count("\n") == 1


def test_a_row_says_when_which_whose_and_why(ended):
    header, _, status, refused = call("--dead").stdout.splitlines()
    assert header.split() == ["accepted", "id", "account", "event", "state", "attempts", "why", "ended"]
    assert refused.split()[2:] == [
        "a-refused", "acme", "SMS_MO", "N211", "dead", "1", "connection", "refused", refused.split()[-1],
    ]  # fmt: skip
    assert " b-status " in status


def test_json_has_the_names_that_it_had_and_nothing_empty(ended):
    done = [json.loads(line) for line in call("--json").stdout.splitlines()]
    assert [(row["id"], row["state"], row.get("reason")) for row in done] == [
        ("a-cancelled", "cancelled", "revoked"), ("b-skipped", "skipped", "origin_off"), ("a-delivered", "delivered", None),
    ]  # fmt: skip
    assert done[2].keys() == {
        "id", "state", "account", "group", "origin", "code", "created", "ended", "attempts", "outcome", "status",
        "elapsed_ms", "url",
    }  # fmt: skip
    assert (done[2]["attempts"], done[2]["status"], done[2]["url"]) == (1, 200, URL)
    assert call("--json", "--account", "nobody").stdout == ""


# -- forms -----------------------------------------------------------------------------------------


def test_csv_has_a_header_and_no_formula(ended, rig):
    rig.client.hset(keys.record("a-refused"), mapping={"reason": "=1+1", "url": 'http://a/?\n,"', "code": "@x"})  # fmt: skip
    header, status, refused = csv.reader(io.StringIO(call("--dead", "--csv").stdout))
    assert header[:3] == ["id", "state", "reason"]
    assert dict(zip(header, status, strict=True))["status"] == "500"
    row = dict(zip(header, refused, strict=True))
    assert (row["reason"], row["code"], row["status"]) == ("'=1+1", "'@x", "")
    assert "\n" not in row["url"]
    nothing = call("--csv", "--account", "nobody")
    assert (nothing.exit_code, nothing.stdout) == (0, ",".join(header) + "\n")


def test_nothing_found_is_0_and_a_sentence(rig):
    for args, sentence in (
        ((), "No postback is done."),
        (("--dead",), "No postback is dead."),
        (("--state", "delivered", "--account", "acme"), "No postback of acme is delivered."),
        (("--dead", "--since", "2h"), "No postback at that time is dead."),
    ):
        shown = call(*args)
        assert (shown.exit_code, shown.stdout) == (0, "")
        assert shown.stderr.splitlines()[-1] == sentence


# -- what cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--json", "--csv"), "--json and --csv are different forms of one answer: choose one."),
        (("--count", "-o", "id"), "-o and --count are different forms of one answer: choose one."),
        (
            ("--count", "--follow"),
            "--count is of all that fit at this moment: leave --follow and --cursor out.",
        ),
        (
            ("--count", "--cursor", "x"),
            "--count is of all that fit at this moment: leave --follow and --cursor out.",
        ),
        (
            ("--dead", "--state", "delivered"),
            "--dead is --state dead, and --state delivered is another: choose one.",
        ),
        (
            ("--between", "14:00", "15:00", "--since", "2h"),
            "--between is --since and --until at once: give it alone.",
        ),
        (
            ("--follow", "--until", "14:00"),
            "--follow goes on from now: leave --cursor, --until and --between out.",
        ),
        (
            ("--follow", "--cursor", "x"),
            "--follow goes on from now: leave --cursor, --until and --between out.",
        ),
        (
            ("--follow", "--state", "parked"),
            "--follow shows what comes and what ends, and parked is neither: leave --state",
        ),
        (("--limit", "100001"), "Invalid value for '--limit': 100001 is not in the range 1<=x<=100000."),
        (("--limit", "0"), "Invalid value for '--limit'"),
        (("--status", "abc"), "Invalid value for '--status': 'abc' is not a valid integer."),
        (("--since", "soon"), "'soon' is no time: try 2h, 14:00, yesterday, 2026-11-28,"),
        (
            ("--between", "15:00", "14:00"),
            "'15:00' to '14:00' lies the wrong way round: name the earlier one first",
        ),
        (("--since", "1h", "--until", "2h"), "No time lies between "),
        (("--slower-than", "2"), "'2' is no length of time: try 500ms, 2s, 30m or 2h."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_in_a_sentence(rig, args, sentence):
    shown = call(*args)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert f"Error: {sentence}" in shown.stderr.splitlines()[-1]
