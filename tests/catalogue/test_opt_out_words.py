"""Texts and events that are opt-outs, and those that are none."""

from __future__ import annotations

import pytest

from postbacks import settings
from postbacks.catalogue import EVENTS, parse_event
from postbacks.catalogue.opt_outs import WORDS, is_opt_out, words_of
from postbacks.catalogue.xml import render
from postbacks.errors import BadSetting

SMS = {
    "ORIGIN": "SMS_MO",
    "CODE": "N211",
    "FROM": "15552310137",
    "TO": "28444",
    "RECEIVED": "2026-05-28T20:30:00Z",
}
MMS = {"ORIGIN": "MMS_MO", "CODE": "N401", "FROM": "15552310137", "TO": "28444", "TRACKINGID": "1", "SPID": "7",
       "TIMESTAMP": "2026-05-28T20:30:00Z", "CONTENT": {"FILE": ["https://files.example/1"]}}  # fmt: skip


def judged(event: dict, *more: str) -> bool:
    """Judge an event by its document."""
    document = render(parse_event(event))
    return is_opt_out(event["ORIGIN"], event["CODE"], document, words_of(more))


@pytest.mark.parametrize("word", WORDS)
def test_each_word_is_one_in_any_case(word):
    assert all(judged(SMS | {"TEXT": text}) for text in (word, word.upper(), word.title()))


@pytest.mark.parametrize(
    "text",
    [
        "STOP", "stop.", " Stop\n", "'STOP'", "STOP!!!", "STOP ALL", "stop-all", "StopAll", "opt-out", "OPTOUT", "Opt Out!",
        "un subscribe", "S.T.O.P.", "stop \u270b\ufe0f", "\ufeffSTOP", "\uff33\uff34\uff2f\uff30", "stop & <", "STOP\r",
        "\U0001d412\U0001d413\U0001d40e\U0001d40f", "stop\x00",
    ],
)  # fmt: skip
def test_case_signs_and_the_width_of_letters_do_not_matter(text):
    assert judged(SMS | {"TEXT": text})


@pytest.mark.parametrize(
    "text",
    [
        "", "...", "Please stop", "stop please", "Don't stop", "Stopp", "STOPPED", "STOP 2", "stop stop", "stops", "the end",
        "No", "HELP", "START", "Bus stop", "quitting", "cancelled", "lt", "amp", "\u0405\u0422\u041e\u0420", "ST0P",
        "stop" + "." * 200, "stop" * 10_000,
    ],
)  # fmt: skip
def test_what_says_more_or_something_else_is_none(text):
    assert not judged(SMS | {"TEXT": text})


@pytest.mark.parametrize("tag", ["KEYWORD", "SUBJECT"])
def test_an_mms_is_one_by_its_keyword_or_its_subject(tag):
    assert judged(MMS | {tag: "Stop"})
    assert not judged(MMS | {tag: "stop it"})
    assert not judged(MMS)


def test_a_setting_adds_words_of_other_languages(monkeypatch):
    monkeypatch.setenv("POSTBACKS_OPT_OUT_WORDS", "arr\u00eat, Baja ,\u505c\u6b62,stopp,")
    settings.load.cache_clear()
    words = settings.load().opt_out_words
    settings.load.cache_clear()
    for text in ("ARR\u00caT", "baja!", "\u505c\u6b62\u3002", "Stopp", "stop"):
        assert judged(SMS | {"TEXT": text}, *words)
    assert not judged(SMS | {"TEXT": "parar"}, *words)


def test_a_word_without_a_letter_is_refused(monkeypatch):
    """Every message of signs alone would be one."""
    monkeypatch.setenv("POSTBACKS_OPT_OUT_WORDS", "baja,!")
    settings.load.cache_clear()
    with pytest.raises(BadSetting, match="has no letter and no digit"):
        settings.load()
    settings.load.cache_clear()


def test_of_the_catalogue_the_two_ways_to_unsubscribe_are_opt_outs():
    rows = {
        row for row in EVENTS if is_opt_out(*row, b"<SOURCE>STOP</SOURCE><STATUS>STOP</STATUS>", words_of(()))
    }
    assert rows == {("SUB", "N302"), ("EMAIL_SUB", "N304")}
