"""``postbacks story`` and ``postbacks stats`` on a terminal and as JSON."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import environment
from test_timeline import BEGIN_MS, HOUR_MS, MINUTE_MS, NUMBER, happened, sms

from postbacks.cli import main
from postbacks.cli.stats import _key
from postbacks.cli.story import _print_moments
from postbacks.history.engine import reader
from postbacks.history.statistics import StatRow
from postbacks.history.timeline import Moment
from postbacks.ledger.record import Attempt, iso
from postbacks.privacy import Masker

KEY = "a key of sixteen"


@pytest.fixture
def call(writer, database_url, broker, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    refused = (
        Attempt(
            1, BEGIN_MS + MINUTE_MS + 20, "status", 500, 31, "answered 500; only 200 counts", "oops \x1b[31m"
        ),
        Attempt(2, BEGIN_MS + 6 * MINUTE_MS, "connect_timeout", None, 10_000, "no connection within 10 s"),
    )
    writer.write(
        [
            sms("submitted", "N201", 0),
            sms("receipt", "N202", MINUTE_MS, account="beta", state="dead", attempts=refused),
            happened("stop", ("SMS_MO", "N211"), 2 * MINUTE_MS, FROM=NUMBER, TEXT="STOP \x1b[2J"),
            sms("open", "N201", HOUR_MS, tracking_id="T5", state="parked", attempts=refused[:1]),
        ],
        recorded_ms=BEGIN_MS,
    )
    with environment(POSTBACKS_HISTORY_URL=database_url, POSTBACKS_PRIVACY_KEY=KEY):
        yield lambda *args: CliRunner().invoke(main, args, prog_name="postbacks")
        reader().dispose()


def test_story_reads_as_a_timeline_and_names_what_is_missing(call):
    shown = call("story", "T1")
    assert shown.exit_code == 0, shown.output
    acme, beta = shown.stdout.split("\n\nAccount beta")
    lines = [line.split(maxsplit=1)[-1] if line.startswith("    ") else line for line in acme.splitlines()]
    masked = Masker(KEY.encode()).number(NUMBER)
    assert lines[0] == f"Account acme, TRACKINGID T1, number {masked}"
    assert lines[1] == "  1  SMS_MT N201   delivered submitted"
    assert '1 N201  submitted to the carrier: "Message Sent"' in lines
    assert "1 N201    POST 1: 200 after 15 ms" in lines
    assert "1 no receipt (N202 or E202) 5 h after N201, usual within 2 h" in lines
    assert f"Afterwards from {masked}, which may be about something else" in lines
    assert lines[-1] == "N211  an SMS was received: 9 characters"
    assert r'answered 500; only 200 counts "oops \x1b[31m"' in beta
    assert "dead: no connection within 10 s" in beta
    assert "\x1b" not in shown.output
    assert "2 accounts have it (acme, beta): --account NAME tells of one." in shown.stderr
    assert "The history is recorded until" in shown.stderr


def test_story_reveals_for_a_reason_alone(call):
    revealed = call("story", "T1", "--reveal", "--why", "ticket 812").stdout
    assert f"Account acme, TRACKINGID T1, number {NUMBER}" in revealed
    assert 'an SMS was received: "STOP \ufffd[2J"' in revealed
    for wrong in (("--reveal",), ("--why", "ticket 812"), ("--reveal", "--why", " ")):
        assert call("story", "T1", *wrong).exit_code == 2


def test_story_as_json_is_a_line_an_account(call):
    lines = [json.loads(line) for line in call("story", "T1", "--json").stdout.splitlines()]
    assert [line["account"] for line in lines] == ["acme", "beta"]
    assert [moment["what"] for moment in lines[0]["moments"]] == ["accepted", "post"]
    assert lines[0]["awaited"][0] | {"until": None} == {
        "name": "receipt", "after": "N201", "codes": ["N202", "E202"], "since": iso(BEGIN_MS), "until": None,
        "missing": True, "id": "submitted",
    }  # fmt: skip
    assert lines[1]["postbacks"][0]["attempts"][0]["status"] == 500
    (one,) = call("story", "T1", "--account", "beta", "--json").stdout.splitlines()
    assert json.loads(one) == lines[1]


def test_an_id_of_two_acceptances_has_a_number_for_each(call, writer):
    writer.write([sms("twice", "N201", 0, tracking_id="T8")])
    writer.write([sms("twice", "N201", 2 * HOUR_MS, tracking_id="T8")])
    lines = [line.split() for line in call("story", "twice").stdout.splitlines()]
    assert [(line[1], line[3]) for line in lines if line[2:3] == ["N201"] and line[0].count(":") == 2] == [
        ("1", "submitted"), ("1", "POST"), ("2", "submitted"), ("2", "POST"),
    ]  # fmt: skip
    assert [line[1] for line in lines if line[:1] == ["missing"]] == ["1", "2"]
    (story,) = map(json.loads, call("story", "twice", "--json").stdout.splitlines())
    assert {moment["created"] for moment in story["moments"]} == {iso(BEGIN_MS), iso(BEGIN_MS + 2 * HOUR_MS)}


@pytest.fixture
def new_york(monkeypatch):
    """The machine stands in New York, where clocks are put back on 2026-11-01 at 06:00 UTC."""
    with environment(TZ="America/New_York"):
        time.tzset()
        yield
    time.tzset()


def test_times_say_their_offset_where_clocks_are_put_back(new_york, capsys):
    back_ms = 1_793_512_800_000
    moments = [
        Moment(ms, "post", "N201", "POST", "a", back_ms)
        for ms in (back_ms - HOUR_MS // 2, back_ms + HOUR_MS // 2)
    ]
    _print_moments(moments, {}, "-04:00")
    assert capsys.readouterr().out.splitlines() == [
        "  2026-11-01",
        "    01:30:00.000  N201    POST",
        "  2026-11-01 (times in -05:00)",
        "    01:30:00.000  N201    POST",
    ]
    figures = {"postbacks": 1, "sent": 1, "first": 1, "later": 0, "dead": 0, "open": 0, "other": 0}
    hours = [
        _key(StatRow(key=iso(ms) or "", **figures, p50_ms=5, p95_ms=5, oldest_open_ms=None), "hour")
        for ms in (back_ms - HOUR_MS, back_ms)
    ]
    assert hours == ["2026-11-01 01:00-04:00", "2026-11-01 01:00-05:00"]


def test_an_unknown_value_is_one_sentence(call):
    unknown = call("story", "nope\x1b")
    assert (unknown.exit_code, unknown.stdout, unknown.stderr.count("\n")) == (1, "", 1)
    assert unknown.stderr.startswith("Error: The history has no postback with the id, TRACKINGID or MMSID ")
    with environment(POSTBACKS_HISTORY_URL=""):
        for command in (("story", "T1"), ("stats",)):
            off = call(*command)
            assert (off.exit_code, "No history is set" in off.stderr) == (2, True)


def test_stats_say_their_span_and_count_by_each_key(call):
    shown = call("stats")
    assert shown.exit_code == 0, shown.output
    heading, _, *rows = shown.stdout.splitlines()
    assert heading.split() == [
        "account", "accepted", "sent", "first", "later", "dead", "open", "other", "p50", "p95", "oldest", "open",
    ]  # fmt: skip
    assert [row.split()[:8] for row in rows] == [
        ["acme", "3", "3", "2", "0", "0", "1", "0"],
        ["beta", "1", "1", "0", "0", "1", "0", "0"],
        ["total", "4", "4", "2", "0", "1", "1", "0"],
    ]
    assert rows[0].split()[8:12] == ["15", "ms", "31", "ms"]
    assert " 4 h " in rows[0]
    assert "Accepted from " in shown.stderr
    assert "24 hours, as no --since is given." in shown.stderr
    by_code = [json.loads(line) for line in call("stats", "--by", "code", "--json").stdout.splitlines()]
    assert {row["key"]: row["postbacks"] for row in by_code} == {
        "SMS_MT N201": 2,
        "SMS_MT N202": 1,
        "SMS_MO N211": 1,
    }
    assert next(row for row in by_code if row["key"] == "SMS_MT N201")["oldest_undelivered"] == iso(
        BEGIN_MS + HOUR_MS
    )
    hours = [json.loads(line)["key"] for line in call("stats", "--by", "hour", "--json").stdout.splitlines()]
    assert hours == sorted(iso(ms // HOUR_MS * HOUR_MS) for ms in (BEGIN_MS, BEGIN_MS + HOUR_MS))


@pytest.mark.parametrize("columns", ["40", "80", "160"])
def test_no_figure_is_cut_on_a_narrow_terminal(call, columns):
    with environment(COLUMNS=columns, FORCE_COLOR="1"):
        shown = call("stats")
    assert shown.exit_code == 0, shown.output
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.stdout).splitlines()
    figures = ["acme", "3", "3", "2", "0", "0", "1", "0", "15 ms", "31 ms", "4 h"]
    if columns == "80":  # two figures above each other
        assert max(map(len, lines)) <= 80
        begin = next(number for number, line in enumerate(lines) if line.startswith("acme"))
        first, second = (re.split(r" {3,}", line.rstrip()) for line in lines[begin : begin + 2])
        assert first == ["acme", "3", "2", "0", "1", "15 ms"]
        assert second[1:] == ["3", "0", "0", "4 h", "31 ms"]
    else:
        row = next(line for line in lines if line.startswith("acme"))
        assert re.split(r" {3,}", row.rstrip())[: len(figures)] == figures
    assert all(word in shown.stdout for word in ("accepted", "later", "other", "oldest open", "total"))


def test_stats_take_the_filters_of_list(call):
    (row,) = call(
        "stats", "--by", "host", "--code", "N202", "--account", "beta", "--since", "1d", "--json"
    ).stdout.splitlines()
    assert json.loads(row)["dead"] == 1
    nothing = call("stats", "--account", "nobody", "--json")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "No postback was accepted in this time that fits." in nothing.stderr
    wrong = call("stats", "--by", "weekday")
    assert (wrong.exit_code, "'account', 'code', 'host', 'hour'" in wrong.stderr) == (2, True)


def test_the_commands_of_the_page_answer(call):
    page = (Path(__file__).parents[2] / "docs" / "history.md").read_text()
    sections = page.partition("\n## The story of a message\n")[2].partition(
        "\n## What has left the broker\n"
    )[0]
    lines = [line for line in sections.splitlines() if line.startswith("    postbacks ")]
    assert len(lines) == 5
    for line in lines:
        answer = call(*shlex.split(line.replace("4711", "T1"), comments=True)[1:])
        assert (answer.exit_code, "Error" in answer.stderr) == (0, False), line
