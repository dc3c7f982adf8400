"""``postbacks list`` without a history: what the broker alone has of postbacks that have ended, in each form."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest
from listing import NO_HISTORY, URL, call, ids

from postbacks import keys
from postbacks.history.times import of_ms


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


def test_an_empty_value_is_refused_by_the_name_of_its_option(ended):
    for option in ("--tracking-id", "--host", "--reason"):
        shown = call("--dead", option, "")
        assert (shown.exit_code, f"Error: An empty {option} is in no postback" in shown.stderr) == (2, True)


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


def test_without_a_history_the_broker_says_who_it_is_about(ended, rig, monkeypatch):
    """Nothing of it wants SQLAlchemy, which is not installed then."""
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    for module in (
        "cli.opt_outs",
        "history.copies",
        "history.engine",
        "history.proofs",
        "history.transactions",
    ):
        monkeypatch.delitem(sys.modules, f"postbacks.{module}", raising=False)
    assert "person" not in call("--dead").stdout
    rig.client.hset(
        keys.record("a-refused"), mapping={"xml": b"<POSTBACK><FROM>15551234567</FROM></POSTBACK>"}
    )
    rows = [json.loads(line) for line in call("--dead", "--person", "--json").stdout.splitlines()]
    assert [row.get("person", "")[:8] for row in rows] == ["", "1555…67 "]


def test_a_history_that_cannot_be_used_leaves_the_broker(ended, tmp_path):
    url = f"sqlite:///{tmp_path}/none.db"
    shown = call("--dead", "-o", "id", history=url)
    assert ids(shown) == ["b-status", "a-refused"]
    assert (
        "is not there yet; `postbacks history run` makes it. So these are postbacks that have ended"
        in shown.stderr
    )
    refused = call("--number", "15552310137", history=url)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "is not there yet; `postbacks history run` makes it." in refused.stderr
