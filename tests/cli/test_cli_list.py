"""``postbacks list``: what it finds in the history and in the broker alone, in each form, and what it says beside."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import environment
from history.records import make_document, make_record

from postbacks import keys
from postbacks.broker import clock
from postbacks.cli import follow, main
from postbacks.devtools.receiver import dead_port
from postbacks.errors import BrokerUnreachable
from postbacks.history import migrations
from postbacks.history.engine import connect
from postbacks.history.times import of_ms, window
from postbacks.history.writer import Writer
from postbacks.ledger import search
from postbacks.ledger.record import Attempt

pytestmark = pytest.mark.usefixtures("forked")

ROOT = Path(__file__).parents[2]
#: The command as it is installed.
POSTBACKS = str(Path(sys.executable).with_name("postbacks"))

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


# -- the history -----------------------------------------------------------------------------------

HOUR_MS = int(time.time()) // 3600 * 3_600_000 - 3_600_000


def posts(*outcomes, at_ms=HOUR_MS, elapsed_ms=40):
    """Make the attempts of a postback, five minutes apart; a number is an answer's status."""
    return tuple(
        Attempt(
            number, at_ms + number * 300_000, "delivered" if outcome == 200 else "status" if isinstance(outcome, int) else outcome,
            outcome if isinstance(outcome, int) else None, elapsed_ms,
        )
        for number, outcome in enumerate(outcomes, start=1)
    )  # fmt: skip


#: Postbacks by id, the oldest first.
RECORDS = {
    "delivered": {"state": "delivered", "attempts": posts(200), "ended_ms": HOUR_MS + 60_000},
    "late": {"state": "delivered", "attempts": posts(503, 200, elapsed_ms=2500), "ended_ms": HOUR_MS + 70_000},
    "dead": {"state": "dead", "attempts": posts(*[503] * 6), "reason": "status", "ended_ms": HOUR_MS + 80_000},
    "refused": {"state": "dead", "account": "beta", "attempts": posts("refused"), "reason": "refused",
                "ended_ms": HOUR_MS + 90_000, "url": "http://10.0.0.9:8080/"},
    "skipped": {"state": "skipped", "reason": "origin_off", "url": "", "ended_ms": HOUR_MS + 50_000},
    "reply": {"state": "delivered", "origin": "SMS_MO", "code": "N211", "group": "mo", "attempts": posts(200),
              "ended_ms": HOUR_MS + 95_000, "document": make_document("of-reply", to="15551234567")},
    "waiting": {"state": "waiting"},
    "parked": {"state": "parked", "attempts": posts(500), "next_ms": HOUR_MS + 9_000_000},
}  # fmt: skip


class Recorded:
    """A history in SQLite that has records, and the URL that a command finds it by."""

    def __init__(self, folder, client):
        self.url = f"sqlite:///{folder}/history.db"
        self._client = client
        engine = connect(self.url)
        weakref.finalize(self, engine.dispose)  # as the end of a recorder's process would
        migrations.prepare(engine)
        self._writer = Writer(engine)
        self._writer.take_lease()

    def record(self, *records, recorded_ms=None):
        """Record what the broker has or had, until now."""
        self._writer.write(records, recorded_id="1-1", recorded_ms=recorded_ms or time.time_ns() // 1_000_000)

    def hold(self, postback_id, **fields):
        """Have the broker hold a record, and return it."""
        record = make_record(postback_id, **fields)
        self._client.delete(keys.record(postback_id))
        self._client.hset(keys.record(postback_id), mapping=record[1])
        if "ended_ms" in fields:
            index = keys.DEAD if fields["state"] == "dead" else keys.DONE
            self._client.zadd(index, {postback_id: fields["ended_ms"]})
        return record

    def forget(self, *postback_ids):
        """Have the broker hold no record of these."""
        for postback_id in postback_ids:
            self._client.delete(keys.record(postback_id))
            self._client.zrem(keys.DEAD, postback_id)
            self._client.zrem(keys.DONE, postback_id)

    def call(self, *args):
        """Call ``postbacks list`` with this history."""
        return call(*args, history=self.url)


@pytest.fixture
def recorded(tmp_path, rig):
    """A history with ``RECORDS``, accepted a second after each other; the broker has what is not at its end."""
    history = Recorded(tmp_path, rig.client)
    accepted = [
        {"accepted_ms": HOUR_MS + number * 1000, **fields} for number, fields in enumerate(RECORDS.values())
    ]
    rows = dict(zip(RECORDS, accepted, strict=True))
    history.record(*(make_record(postback_id, **fields) for postback_id, fields in rows.items()))
    for postback_id in ("waiting", "parked"):
        history.hold(postback_id, **rows[postback_id])
    return history


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
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
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


# -- times and clocks ------------------------------------------------------------------------------


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


# -- following -------------------------------------------------------------------------------------


def now_ms():
    """Return this machine's time, which is the suite's broker's."""
    return time.time_ns() // 1_000_000


@pytest.fixture
def polls(monkeypatch):
    """Do one step before each poll, and press Ctrl-C after the last one."""

    def start(*steps):
        left = iter(steps)

        def step(_):
            try:
                next(left)()
            except StopIteration:
                raise KeyboardInterrupt from None

        monkeypatch.setattr(follow, "sleep", step)

    return start


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


# -- persons ---------------------------------------------------------------------------------------


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


def test_no_document_is_read_for_a_list_without_persons(recorded, monkeypatch):
    monkeypatch.setattr("postbacks.history.persons.records_of", None)
    assert recorded.call("--json").exit_code == 0
    assert recorded.call("--json", "--person").exit_code != 0


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
        (
            ("--count", "--person"),
            "--person is a column of the table, --json and --csv: leave it or --count out.",
        ),
        (
            ("-o", "id", "--person"),
            "--person is a column of the table, --json and --csv: leave it or -o out.",
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


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--state", "deadd"), "There is no state 'deadd'. Did you mean dead?"),
        (("--code", "N2022"), "There is no code 'N2022'. Did you mean N202?"),
        (("--origin", "sms_mo"), "There is no origin 'sms_mo'. Did you mean SMS_MO?"),
        (
            ("--number", "call me"),
            "'call me' is no phone number; give its 3 digits or more, such as +1 555 231 0137.",
        ),
        (("--email", "ann"), "'ann' is no e-mail address; give it whole, such as ann@example.com."),
        (
            ("--host", "https://a.example/in"),
            "'https://a.example/in' is more than a host; give a.example alone.",
        ),
        (("--status", "99"), "99 is no HTTP status; give one from 100 to 599."),
        (("--account", "no name"), "'no name' is no account name: 1 to 128 letters, digits and"),
        (("--group", "mo", "--origin", "SMS_MT"), "No postback has group mo and origin SMS_MT: "),
        (
            ("--dead", "--outcome", "delivered", "--count"),
            "No postback has state dead and outcome delivered: ",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_no_postback_has_is_refused_in_one_sentence(recorded, args, sentence):
    shown = recorded.call(*args)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.startswith(f"Error: {sentence}")
    assert shown.stderr.count("\n") == 1
