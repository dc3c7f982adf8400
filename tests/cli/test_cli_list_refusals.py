"""``postbacks list`` refuses in a sentence what no answer can be, and what no postback has."""

from __future__ import annotations

import pytest
from listing import call


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
