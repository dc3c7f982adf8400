"""Filter bar: the words of ``postbacks list``, and the command line that does the same."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import PROPERTY

from postbacks.cli import filters as options
from postbacks.cli.search import list_
from postbacks.errors import InvalidQuery
from postbacks.history.query import Query
from postbacks.web import filterbar
from postbacks.web.filterbar import Word, completions, guesses, id_of, parse

NOW = datetime(2026, 11, 28, 14, 30, 12, 345_000, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
BERLIN = ZoneInfo("Europe/Berlin")


def bar_of(text: str, zone: ZoneInfo = BERLIN) -> filterbar.Bar:
    return parse(text, now_ms=lambda: NOW_MS, zone=zone)


def query_of_command(command: str, monkeypatch: pytest.MonkeyPatch) -> Query:
    """Parse a command line as ``postbacks list`` does, its clock at ``NOW``."""
    found: list[Query] = []

    @click.command()
    @options.history_filters
    def capture(query: Query) -> None:
        found.append(query)

    with monkeypatch.context() as patch:
        patch.setattr(options._Clock, "_read", lambda _: NOW_MS)
        postbacks, name, *arguments = shlex.split(command)
        assert (postbacks, name) == ("postbacks", "list")
        capture.main(arguments, standalone_mode=False)
    return found[0]


def test_the_words_are_the_options_of_the_command():
    flags = {option.opts[0].removeprefix("--") for option in list_.params if getattr(option, "section", "") in {
        options._WHICH, options._WHEN, options._VALUES}}  # fmt: skip
    assert flags == {*filterbar.FILTERS, *filterbar.FLAGS}


_text = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(str.strip)
_age = st.sampled_from(["2h", "30m", "500ms", "1.5h", "1d"])
_moments = st.sampled_from(
    [
        "14:00",
        "09:15:30",
        "yesterday",
        "2026-11-27",
        "2026-11-27 18:00",
        "2026-11-27T18:00+05:30",
        "2026-11-27T01:02:03.004Z",
    ]
)
_times = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"since": _age | _moments}),
    st.fixed_dictionaries({"until": _age | _moments}),
    st.fixed_dictionaries({"since": _age | _moments, "until": _age | _moments}),
    st.sampled_from(
        [{"between": "13:00 14:00"}, {"between": "2026-11-27 09:00 2026-11-27 17:00"}, {"between": "2h 30m"}]
    ),
)
_values = st.fixed_dictionaries(
    {},
    optional={
        "account": st.sampled_from(["acme", "-dash", "a.b_c-1"]),
        "state": st.sampled_from(["dead", "parked", "held", "forgotten", "delivered"]),
        "code": st.sampled_from(["N202", "N211"]),
        "origin": st.sampled_from(["SMS_MT", "SMS_MO"]),
        "group": st.sampled_from(["mt", "mo"]),
        "outcome": st.sampled_from(["status", "refused", "delivered"]),
        "reason": _text,
        "status": st.sampled_from(["200", "503"]),
        "attempts": st.sampled_from(["0", "1", "12"]),
        "slower-than": st.sampled_from(["500ms", "2s", "1.5s"]),
        "host": st.sampled_from(["hooks.example", "[::1]", "ONE.example"]),
        "number": st.sampled_from(["15552310137", "+1 (555) 231-0137", "86717"]),
        "email": st.sampled_from(["ann@mail.example", "Ann Lee@mail.example"]),
        "tracking-id": _text,
        "mms-id": _text,
        "sub-id": _text,
        "serial-number": _text,
        "dead": st.just(""),
        "opt-outs": st.just(""),
        "undelivered": st.just(""),
    },
)


@PROPERTY
@given(
    values=_values,
    times=_times,
    zone=st.sampled_from([BERLIN, ZoneInfo("UTC"), ZoneInfo("America/New_York")]),
)
def test_the_command_line_parses_to_the_same_query(values, times, zone):
    typed = filterbar.text_of(Word(name, value) for name, value in (values | times).items())
    try:
        bar = bar_of(typed, zone)
    except InvalidQuery:
        return  # filters that exclude each other, or times the wrong way round
    assert bar.text == typed
    assert bar_of(bar.text, zone) == bar
    with pytest.MonkeyPatch.context() as patch:
        assert query_of_command(bar.command(), patch) == bar.query


def test_the_words_of_the_issue_mean_what_they_say():
    bar = bar_of('account:acme state:dead code:N202 since:2h to:15552310137 reason:"a \\"b\\" \\\\c"')
    assert bar.query.number == "15552310137"
    assert bar.query.since_ms == NOW_MS // 1000 * 1000 - 7_200_000
    assert bar.query.reason == 'a "b" \\c'
    assert bar.command().startswith(
        "postbacks list --account acme --state dead --code N202 --number 15552310137"
    )
    assert "--since 2h" in bar.command()


def test_times_are_the_viewers():
    assert bar_of("since:14:00").query.since_ms == int(
        datetime(2026, 11, 28, 13, tzinfo=UTC).timestamp() * 1000
    )
    assert "--since 2026-11-28T13:00:00.000Z" in bar_of("since:14:00").command()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acount:acme", "no filter 'acount:acme'. Did you mean account?"),
        ("nonsense", "There is no filter 'nonsense'."),
        ("15552310137", "a phone number is number:15552310137"),
        ("number:+1 555 231", "in quotes"),
        ("state:ded", "Did you mean dead?"),
        ("status:many", "'many' is no number"),
        ("state:", "state has no value"),
        ('tracking-id:"a', "does not end"),
        ("code:N202 code:N201", "code is given twice"),
        ("dead state:parked", "leave one out"),
        ("between:14:00", "not two times"),
        ("since:soon", "'soon' is no time"),
        ("--dead", "here it is dead"),
        ("\u202enonsense\x1b[2J", "\\u202e"),
        ("x" * 5000, "4,000 characters"),
    ],
)
def test_a_bad_word_is_named_with_what_there_is(text, words):
    with pytest.raises(InvalidQuery) as error:
        bar_of(text)
    assert words in str(error.value)
    assert len(str(error.value)) < 700


def test_a_click_puts_a_filter_in_place_of_what_it_excludes():
    bar = bar_of("account:acme dead since:2h until:1h")
    assert bar.put("state", "parked") == "account:acme since:2h until:1h state:parked"
    assert bar.put("since", "1d") == "account:acme dead until:1h since:1d"
    assert bar.put("between", "13:00 14:00") == 'account:acme dead between:"13:00 14:00"'
    narrowed = bar_of(bar.narrowed(NOW_MS - 5000, NOW_MS)).query
    assert (narrowed.since_ms, narrowed.until_ms) == (NOW_MS - 5000, NOW_MS)


def test_a_fixed_bar_means_later_what_it_means_now():
    fixed = bar_of("account:acme since:2h").fixed(NOW_MS)
    later = parse(fixed, now_ms=lambda: NOW_MS + 60_000, zone=BERLIN).query
    assert (later.since_ms, later.until_ms) == (bar_of("since:2h").query.since_ms, NOW_MS)


def test_names_and_values_are_completed():
    assert completions("account:acme st", {}) == ["account:acme state:", "account:acme status:"]
    assert completions("state:de", {}) == ["state:delivered", "state:dead"]
    assert completions("code:n2 ac", {}) == ["code:n2 account:"]
    assert "account:acme" not in completions("account:acme ", {})
    assert completions("x:1 account:a", {"account": ["acme", "b"]}) == ["x:1 account:acme"]
    assert completions("to:1", {"number": ["1 2"]}) == ['number:"1 2"']


def test_a_value_without_its_name_is_guessed():
    assert guesses("+1 555 231 0137") == ['number:"+1 555 231 0137"']
    assert guesses("4711") == ["number:4711", "tracking-id:4711", "mms-id:4711"]
    assert guesses("ann@mail.example") == [
        "email:ann@mail.example",
        "tracking-id:ann@mail.example",
        "mms-id:ann@mail.example",
    ]
    assert guesses("acme") == ["account:acme", "tracking-id:acme", "mms-id:acme"]
    assert guesses("acme dead")[0] == "account:acme dead"
    assert guesses("since:2h 15552310137")[0] == "number:15552310137 since:2h"
    assert guesses("account:acme x") == ["tracking-id:x account:acme", "mms-id:x account:acme"]
    assert [guesses(text) for text in ("", " ", "dead", "account:acme", "acount:acme x", "two words")] == [
        []
    ] * 6
    assert all(bar_of(guess) for text in ("+1 555 231 0137", "4711", "acme") for guess in guesses(text))


def test_an_id_alone_is_an_id():
    assert id_of(" 7c0e1f3a-1111-4222-8333-444455556666 ")
    assert [id_of(text) for text in ("", "dead", "opt-outs", "account:acme", "15552310137")] == [""] * 5


def test_a_query_is_written_as_the_bar_that_asks_for_it():
    query = Query(
        account="acme",
        state="dead",
        slower_than_ms=1500,
        opt_outs=True,
        number="+1 555 231 0137",
        since_ms=1_795_862_533_000,
        until_ms=1_795_863_195_250,
    )
    text = filterbar.bar_of(query)
    assert parse(text, now_ms=lambda: 0).query == replace(
        query, limit=parse("", now_ms=lambda: 0).query.limit
    )
    assert "since:2026-11-28T10:42:13.000Z" in text
