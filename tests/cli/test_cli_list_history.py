"""``postbacks list`` with a history: what each filter finds, on which page, and what it says beside."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import time
from pathlib import Path

import pytest
from helpers import environment
from history.records import make_record
from listing import HOUR_MS, RECORDS, Recorded, ids, now_ms, posts

from postbacks.broker import clock
from postbacks.devtools.receiver import dead_port
from postbacks.history.times import of_ms, window

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ((), list(reversed(RECORDS))),
        (("--account", "beta"), ["refused"]),
        (("--group", "mo"), ["reply"]),
        (("--origin", "SMS_MO"), ["reply"]),
        (("--code", "N202", "--state", "delivered"), ["late", "delivered"]),
        (("--dead",), ["refused", "dead"]),
        (("--state", "parked"), ["parked"]),
        (("--state", "waiting"), ["waiting"]),
        (("--reason", "refused"), ["refused"]),
        (("--outcome", "status"), ["parked", "dead"]),
        (("--status", "503"), ["dead"]),
        (("--host", "HOOKS.acme.example", "--status", "503"), ["dead"]),
        (("--host", "10.0.0.9"), ["refused"]),
        (("--attempts", "2"), ["late"]),
        (("--slower-than", "2s"), ["late"]),
        (("--number", "+1 (555) 123-4567"), ["reply"]),
        (("--tracking-id", "of-reply"), ["reply"]),
        (("--tracking-id", "dead"), ["dead"]),
        (("--since", of_ms(HOUR_MS + 5000).isoformat()), ["parked", "waiting", "reply"]),
        (("--between", of_ms(HOUR_MS + 1000).isoformat(), of_ms(HOUR_MS + 3000).isoformat()), ["dead", "late"]),
    ],
    # without times: workers of pytest-xdist that collect in two hours would have different tests
    ids=lambda value: " ".join(word for word in value if ":" not in word) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_each_filter_finds_its_postbacks_newest_first_and_counts_them(recorded, args, found):
    assert ids(recorded.call(*args, "-o", "id")) == found
    counted = recorded.call(*args, "--count")
    assert (counted.exit_code, counted.stdout) == (0, f"{len(found)}\n")
    assert "The history is recorded until " in counted.stderr


def test_a_row_of_the_history_says_why_in_words(recorded):
    lines = {line.split()[2]: line for line in recorded.call().stdout.splitlines()[2:]}
    assert lines.keys() == RECORDS.keys()
    assert " dead               6   answered 503 " in lines["dead"]
    assert " the connection was refused or could not be made " in lines["refused"]
    assert " its account has switched off SMS_MT " in lines["skipped"]
    assert of_ms(HOUR_MS + 80_000).isoformat()[11:] in lines["dead"]
    assert lines["delivered"].split()[-2] == "1"  # nothing stands between the attempts and the end
    assert lines["waiting"].rstrip().endswith(" 0")


@pytest.mark.parametrize("columns", ["40", "80", "100", "160"])
def test_a_terminal_shows_ids_and_states_whole(recorded, columns):
    long_id = "0b563713-b4a8-42e3-9cac-44a3a6fc8d0a"
    recorded.record(make_record(long_id, state="skipped", reason="origin_off", accepted_ms=HOUR_MS + 99_000, url="",
                                account="an-account-with-a-name"))  # fmt: skip
    with environment(COLUMNS=columns, FORCE_COLOR="1"):
        shown = re.sub(r"\x1b\[[0-9;]*m", "", recorded.call("--limit", "2").stdout)
    assert long_id in shown
    assert re.search(r"\bskipped\b", shown)
    assert re.search(r"\bparked\b", shown)
    # Where an id alone is wider, each postback is one line that the terminal breaks.
    assert columns == "40" or max(map(len, shown.splitlines())) <= int(columns)


def test_a_page_leads_to_the_next_until_all_are_seen(recorded):
    seen, more = [], ()
    while True:
        shown = recorded.call("-o", "id", "--limit", "3", *more)
        seen += ids(shown)
        found = shown.stderr.splitlines()[0]
        if "--cursor" not in found:
            break
        more = found.removesuffix(".").split()[-2:]
    assert seen == list(reversed(RECORDS))
    assert found == "2 postbacks."
    foreign = recorded.call("--dead", *more)
    assert (foreign.exit_code, foreign.stdout) == (2, "")
    assert "The cursor is of a query with other filters" in foreign.stderr
    assert "The cursor cannot be read" in recorded.call("--cursor", "nonsense").stderr


def test_a_page_of_a_time_that_has_moved_on_leads_to_the_next_as_well(recorded):
    first = recorded.call("-o", "id", "--limit", "6", "--since", "3h")
    cursor = first.stderr.splitlines()[1].removesuffix(".").split()[-1]
    rest = recorded.call("-o", "id", "--since", "3h", "--cursor", cursor)
    assert ids(first) + ids(rest) == list(reversed(RECORDS))


def test_more_than_are_read_at_once_are_printed_in_order(tmp_path, rig):
    history = Recorded(tmp_path, rig.client)
    rows = [make_record(f"id-{number}", state="delivered", accepted_ms=HOUR_MS + number, ended_ms=HOUR_MS + number,
                        attempts=posts(200), document=b"") for number in range(4100)]  # fmt: skip
    history.record(*rows)
    shown = history.call("-o", "id", "--limit", "4050")
    assert ids(shown) == [f"id-{number}" for number in range(4099, 49, -1)]
    assert shown.stderr.startswith("4,050 postbacks; for older ones add --cursor ")
    lines = history.call("--csv", "--limit", "100000").stdout.splitlines()
    assert (len(lines), lines[0][:9]) == (4101, "id,state,")


def test_what_is_unfinished_is_shown_as_the_broker_has_it_now(recorded):
    accepted_ms = HOUR_MS + list(RECORDS).index("waiting") * 1000
    recorded.hold(
        "waiting", state="delivered", accepted_ms=accepted_ms, attempts=posts(200), ended_ms=HOUR_MS + 99_000
    )
    (row,) = [
        json.loads(line) for line in recorded.call("--tracking-id", "waiting", "--json").stdout.splitlines()
    ]
    assert (row["state"], row["status"]) == ("delivered", 200)
    shown = recorded.call("--state", "waiting", "--count")
    assert shown.stdout == "0\n"
    assert re.search(r"; what is unfinished is as the broker had it at \d\d:\d\d:\d\d[+-]", shown.stderr)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--dead", "--account", "acme", "--code", "N211"), "1 postback of acme of N211, none dead; 1 dead of acme, none of N211."),
        (("--account", "acme", "--status", "404"), "7 postbacks of acme, none answered 404."),
        (("--dead", "--since", "2026-01-01", "--until", "2026-01-02"), "2 dead, none at that time."),
        (("--account", "nobody"), "8 postbacks, none of nobody."),
        (("--number", "15559990000", "--state", "delivered"), "3 delivered, none with number 15559990000."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_nothing_found_says_which_filter_leaves_nothing(recorded, args, words):
    shown = recorded.call(*args)
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert words in shown.stderr.splitlines()
    assert recorded.call(*args, "--json").stdout == ""


def test_an_empty_history_says_so(tmp_path, rig):
    history = Recorded(tmp_path, rig.client)
    assert history.call("--dead").stderr.splitlines() == [
        "The history has no postback.", "The history has recorded nothing yet: is `postbacks history run` running?",
    ]  # fmt: skip


def test_a_history_that_is_behind_says_how_far(recorded):
    recorded.record(recorded_ms=int(time.time() * 1000) - 3 * 3_600_000)
    assert re.search(
        r"recorded until \S+ \S+, 3 h ago \(`postbacks history status` says why\)",
        recorded.call().stderr,
    )
    recorded.record()
    assert "ago" not in recorded.call().stderr


def test_the_commands_of_the_page_find(recorded):
    page = (ROOT / "docs" / "history.md").read_text()
    section = page.partition("\n## Find\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("    postbacks list ")]
    assert len(lines) == 6
    for line in lines:
        shown = recorded.call(*shlex.split(line, comments=True)[2:])
        assert (shown.exit_code, "Error" in shown.stderr) == (0, False), line
    assert shown.stdout == "1\n"


def test_ages_are_counted_from_the_brokers_clock_and_it_is_said_where_it_differs(recorded, monkeypatch):
    assert re.fullmatch(r"Accepted from \S+ \S+ on\.", recorded.call("--since", "2h").stderr.splitlines()[0])
    now = clock.now_ms
    monkeypatch.setattr(clock, "now_ms", lambda client: now(client) + 37_400)
    said = recorded.call("--since", "2h").stderr.splitlines()[0]
    assert re.fullmatch(
        r"Accepted from (\S+ \S+) on, by the broker's clock, which is 37 s ahead of this machine's\.", said
    )
    ms = window("T".join(said.split()[2:4]), None, now_ms).since_ms
    assert abs(ms - (time.time() * 1000 + 37_400 - 7_200_000)) < 30_000


def test_without_the_broker_the_history_answers_and_says_what_it_could_not_ask(recorded):
    with dead_port() as port, environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{port}/0"):
        shown = recorded.call("--since", "3h", "-o", "id")
    assert ids(shown) == list(reversed(RECORDS))
    assert " on, by this machine's clock: the broker does not answer.\n" in shown.stderr
    missed = "; the broker does not answer, and what is unfinished may have ended since."
    assert missed in shown.stderr
    with dead_port() as port, environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{port}/0"):
        held = recorded.call("--state", "held", "--count")
    assert (held.stdout, missed in held.stderr) == ("0\n", True)
    assert (
        "; what is unfinished is as the broker had it at "
        in recorded.call("--state", "held", "--count").stderr
    )


def test_a_person_is_a_column_masked_and_the_same_in_each_form(recorded):
    rows = [json.loads(line) for line in recorded.call("--person", "--json").stdout.splitlines()]
    person_of = {row["id"]: row["person"] for row in rows}
    assert re.fullmatch(r"1555…37 ·[0-9a-z]{4}", person_of["dead"])
    assert person_of["dead"] == person_of["late"] == person_of["waiting"] == person_of["refused"]
    header, *lines = csv.DictReader(io.StringIO(recorded.call("--person", "--csv").stdout)).reader
    assert header[-1] == "person"
    assert {line[0]: line[-1] for line in lines} == person_of
    header, _, *lines = recorded.call("--person").stdout.splitlines()
    assert header.split()[-2:] == ["ended", "person"]
    assert len(lines) == len(person_of)
    for line in lines:
        assert line.endswith(f" {person_of[line.split()[2]]}")


def test_a_person_is_empty_where_there_is_no_document(recorded):
    recorded.record(make_record("bare", state="dead", reason="no_url", document=b"", accepted_ms=HOUR_MS + 99_000,
                                ended_ms=HOUR_MS + 99_000))  # fmt: skip
    (row,) = [
        json.loads(line) for line in recorded.call("--person", "--limit", "1", "--json").stdout.splitlines()
    ]
    assert (row["id"], "person" in row) == ("bare", False)
    assert recorded.call("--person", "--limit", "1", "--csv").stdout.splitlines()[1].endswith(",")
    assert " bare " in recorded.call("--person", "--limit", "1").stdout


def test_no_document_is_read_for_a_list_without_persons(recorded, monkeypatch):
    monkeypatch.setattr("postbacks.history.persons.records_of", None)
    assert recorded.call("--json").exit_code == 0
    assert recorded.call("--json", "--person").exit_code != 0
