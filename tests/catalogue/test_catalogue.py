"""The event types against ``docs/catalogue.md``, in both directions, and the rules of every value."""

from __future__ import annotations

import inspect
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from events import example, examples, minimal_examples
from hypothesis import given
from hypothesis import strategies as st
from pages import CATALOGUE, catalogue_rows, cells
from strategies import PROPERTY, any_mapping, any_text

from postbacks.catalogue import (
    EVENTS,
    MAX_EVENT_BYTES,
    ORIGINS,
    Event,
    MmsReceived,
    PassGenerated,
    SmsDelivered,
    SmsReceived,
    event_type,
    parse_event,
    table,
)
from postbacks.errors import InvalidEvent
from postbacks.printable import MAX_QUOTED, quoted

ROWS = catalogue_rows()
WHEN = datetime(2013, 11, 5, 5, 41, 8, tzinfo=timezone(timedelta(hours=-5)))

each_event = pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.__name__)


def _refusal(event: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as error:
        parse_event(event)
    return error.value


# -- the catalogue's own tables -------------------------------------------------------------------


def test_the_catalogue_and_the_event_types_have_the_same_rows() -> None:
    assert sorted(ROWS) == sorted(EVENTS)


def test_the_table_has_the_catalogue_s_order() -> None:
    assert list(ROWS) == [(row.origin, row.code) for row in table()]


def test_an_event_type_is_whole_once_it_is_defined() -> None:
    """The signature has the tags; before 2.14 pydantic builds a deferred class without a lock, and threads fail."""

    class Fresh(SmsReceived):
        pass

    assert {"FROM", "TO", "RECEIVED"} <= inspect.signature(Fresh).parameters.keys()
    assert Fresh.__pydantic_complete__


@each_event
def test_every_row_has_the_catalogue_s_tags_in_its_order_and_with_its_marks(event: type[Event]) -> None:
    expected = ROWS[event.origin, event.code]["tags"]
    if event is PassGenerated:
        (required,) = re.findall(r"N801 requires (\w+) and (\w+)\.", CATALOGUE)
        expected = [tag.rstrip("?") if tag.rstrip("?") in required else tag for tag in expected]
    assert [str(tag) for tag in event.tags] == expected


@each_event
def test_every_row_has_the_catalogue_s_meaning(event: type[Event]) -> None:
    meaning = ROWS[event.origin, event.code]["meaning"]
    # "the device discovery message was sent, was delivered" is one cell for two codes.
    subject = "the device discovery message "
    if meaning.startswith(subject):
        assert event.meaning in [subject + verb for verb in meaning.removeprefix(subject).split(", ")]
    else:
        assert event.meaning == meaning


@each_event
def test_every_closed_set_of_values_is_the_catalogue_s(event: type[Event]) -> None:
    values = {tag.name: set(tag.form.values) for tag in event.tags if tag.form.values}
    expected = {}
    if ROWS[event.origin, event.code]["status"]:
        expected["STATUS"] = ROWS[event.origin, event.code]["status"]
    if any(tag.name == "SENTAS" for tag in event.tags):
        expected["SENTAS"] = {"MMS", "SMS"}
    if event.origin == "GENERATE_PASS":
        expected["STATUSCODE"] = {event.code}
    if found := re.search(rf"SOURCE of {event.code}: (.*?)\.(?: |$)", CATALOGUE, re.MULTILINE):
        expected["SOURCE"] = set(re.findall(r"`([^`]+)`", found[1]))
    assert values == expected


def test_origins_are_in_the_catalogue_s_groups() -> None:
    names = {"General system": "general", "SMS/MMS MO": "mo", "SMS/MMS MT": "mt", "Pass generation": "pass"}
    section = CATALOGUE.split("## Groups")[1].split("## Codes")[0]
    rows = [cells(line) for line in section.splitlines() if "`" in line and line.startswith("|")]
    expected = {
        origin: name
        for group, origins, _ in rows
        for title, name in names.items()
        if group.startswith(title)
        for origin in re.findall(r"`(\w+)`", origins)
    }
    assert expected == ORIGINS


def test_a_class_is_the_one_thing_that_a_new_code_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    registry: dict[tuple[str, str], type[Event]] = {}
    monkeypatch.setattr("postbacks.catalogue.base._registry", registry)

    class SmsSeen(SmsReceived, origin="SMS_MO", code="N299", meaning="an SMS was seen"):
        pass

    assert registry == {("SMS_MO", "N299"): SmsSeen}
    assert SmsSeen.group == "mo"


# -- events and mappings --------------------------------------------------------------------------


@pytest.mark.parametrize("mapping", [*examples().values(), *minimal_examples().values()])
def test_an_example_becomes_an_event_and_the_same_mapping_again(mapping: dict[str, Any]) -> None:
    event = parse_event(mapping)
    assert event.to_mapping() == mapping
    assert list(event.to_mapping()) == list(mapping)
    assert (event.origin, event.code) == (mapping["ORIGIN"], mapping["CODE"])
    assert parse_event(event) == event


@PROPERTY
@given(any_mapping())
def test_every_event_survives_json(mapping: dict[str, Any]) -> None:
    event = parse_event(mapping)
    assert parse_event(json.loads(json.dumps(event.to_mapping(), ensure_ascii=False).encode())) == event


def test_an_event_is_constructed_with_python_names() -> None:
    event = SmsReceived(from_="15552312102", to="86717", text="STOP", received=WHEN)
    assert event.to_mapping() == {
        "ORIGIN": "SMS_MO",
        "CODE": "N211",
        "FROM": "15552312102",
        "TO": "86717",
        "TEXT": "STOP",
        "RECEIVED": "2013-11-05T05:41:08-05:00",
    }


def test_python_names_and_tags_make_the_same_event() -> None:
    by_tag = example(MmsReceived)
    by_name = {tag.field: by_tag[tag.name] for tag in MmsReceived.tags}
    assert parse_event(by_tag) == MmsReceived(**by_name)
    assert parse_event(by_tag) == parse_event({"ORIGIN": "MMS_MO", "CODE": "N401", **by_name})


def test_an_optional_tag_that_is_none_is_left_out() -> None:
    mapping = example(MmsReceived, required_only=True)
    assert parse_event(mapping | {"KEYWORD": None, "SUBJECT": None}).to_mapping() == mapping


def test_an_empty_string_is_a_value() -> None:
    mapping = example(SmsReceived) | {"TEXT": "", "TRANSACTIONID": ""}
    assert parse_event(mapping).to_mapping() == mapping


@pytest.mark.parametrize(
    "content", [{"FILE": ["http://a/1"]}, {"FILE": "http://a/1"}, ["http://a/1"], ("http://a/1",)]
)
def test_content_is_taken_with_or_without_its_wrapping(content: Any) -> None:
    event = parse_event(example(MmsReceived) | {"CONTENT": content})
    assert event.to_mapping()["CONTENT"] == {"FILE": ["http://a/1"]}


@pytest.mark.parametrize(
    "named", [{"CODE": "N803"}, {"STATUSCODE": "N803"}, {"CODE": "N803", "STATUSCODE": "N803"}]
)
def test_a_pass_names_its_code_in_either_tag_and_has_it_in_both(named: dict[str, str]) -> None:
    mapping = examples()["GENERATE_PASS", "N803"]
    rest = {tag: value for tag, value in mapping.items() if tag not in {"CODE", "STATUSCODE"}}
    assert parse_event(rest | named).to_mapping() == mapping


def test_an_event_that_was_copied_with_a_bad_value_is_refused() -> None:
    error = _refusal(parse_event(example(SmsReceived)).model_copy(update={"to": "+1"}))
    assert [tag for tag, _ in error.problems] == ["TO"]


def test_events_are_frozen_and_can_be_members_of_sets() -> None:
    event = parse_event(example(MmsReceived))
    assert {event} == {parse_event(example(MmsReceived))}
    with pytest.raises(ValueError, match="frozen"):
        event.to = "1"  # type: ignore[attr-defined]


# -- values ---------------------------------------------------------------------------------------

ALL_TAGS = {tag.name: event for event in EVENTS.values() for tag in event.tags}

# A kind of value a line.
# fmt: off
GOOD = [  # tag, value, what is sent of it where that differs
    *(("FROM", value) for value in ["123", "012345678901234"]),
    *(("FROM_MASK", value) for value in ["McDonald's", "A-1 _B+C.", ""]),
    *(("TIMESTAMP", f"2013-11-05T05:41:08{rest}") for rest in ["-05", "-05:00", "Z", ".123+05:30", ",5Z"]),
    ("TIMESTAMP", "2024-02-29T00:00:00Z"),
    ("TIMESTAMP", WHEN, "2013-11-05T05:41:08-05:00"),
    ("TIMESTAMP", WHEN.astimezone(UTC), "2013-11-05T10:41:08+00:00"),
    *(("TRACKINGID", value) for value in ["x" * 255, "😀" * 255, "", "a b"]),
    *(("TRACKINGID", value, str(value)) for value in [0, 35674, 2**70]),
    ("SPID", "0032"),
    *(("EMAIL", value) for value in ["jane+tag@mail.example.co.uk", "jürgen@müller.example"]),
    *(("TEXT", value) for value in ["", "a\rb\r\nc\td", "x" * 65536, "€" * 21845]),
    ("TEXT", "\x00\x0c\x1b\ud800\ufffe\uffff", "\ufffd" * 6),
    ("TEXT", "\ud83d\ude00 and 😀", "\ufffd\ufffd and 😀"),
    ("CONTENT", {"FILE": ["HTTPS://user@[::1]:8080/ü?x#y"]}),
]

BAD = {
    "FROM": ["+15552312102", "0015552312102", "12", "1" * 16, "", " 123", "123\n", "١٢٣", 15552312102, b"155523"],
    "FROM_MASK": ["twelve chars", "a\nb", "a<b", "über", 5],
    "TIMESTAMP": [
        "2013-11-05T05:41:08", "2013-11-05T05:41-05:00", "2013-11-05 05:41:08Z", "20131105T054108Z", "",
        "2013-02-30T05:41:08Z", "2013-11-05T24:00:00Z", "2013-11-05T05:41:08-0500", "2013-11-05T05:41:08+24:00",
        1383648068, WHEN.replace(tzinfo=None), WHEN.replace(tzinfo=timezone(timedelta(seconds=3208))),
    ],
    "TRACKINGID": ["x" * 256, "a\x00", "\ud800", "\uffff", True, 1.5, 10**255, b"1", []],
    "SPID": [32, "", "3x", "-1", "٣", "1" * 256],
    "EMAIL": [
        "jane", "jane@localhost", "@a.example", "a@b@c.example", "a b@c.example", "", "\x01@a.example",
        "a" * 65 + "@b.example", "a@b.example\n",
    ],
    "TEXT": ["x" * 65537, "€" * 21846, "\x00" * 21846, 5, b"STOP"],
    "STATUS": ["message sent", "Message Sent ", "", 1, []],
    "SENTAS": ["mms", "RCS", ""],
    "SOURCE": ["WEB ", "manager", "IMPORTED"],
    "CONTENT": [
        [], {"FILE": []}, {}, {"FILES": ["http://a/"]}, "http://a/", 5, {"FILE": None}, {"FILE": {"http://a/"}},
        ["ftp://a/"], ["http://"], ["http:///x"], ["http://a b/"], ["a.jpg"], ["http://a:99999/"], ["http://[::1"],
        ["http://a/\x01"], ["http://a/\ud800"], ["http://a/", 5], [""],
    ],
}
# fmt: on


def _with(tag: str, value: Any) -> dict[str, Any]:
    return example(ALL_TAGS[tag]) | {tag: value}


@pytest.mark.parametrize(("tag", "given", "sent"), [(row[0], row[1], row[-1]) for row in GOOD])
def test_a_good_value_is_sent(tag: str, given: Any, sent: Any) -> None:
    assert parse_event(_with(tag, given)).to_mapping()[tag] == sent


@pytest.mark.parametrize(("tag", "given"), [(tag, value) for tag, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_by_its_tag(tag: str, given: Any) -> None:
    assert [name for name, _ in _refusal(_with(tag, given)).problems] == [tag]


def test_an_int_too_long_for_digits_is_refused_like_any_other() -> None:
    assert "TRACKINGID: must be text of at most 255 characters" in str(
        _refusal(_with("TRACKINGID", 10**5000))
    )


@each_event
def test_a_required_tag_with_no_value_is_refused(event: type[Event]) -> None:
    # STATUSCODE follows from CODE, so a pass may leave it out.
    required = [tag.name for tag in event.tags if tag.required and tag.name != "STATUSCODE"]
    assert [tag for tag, _ in _refusal({"ORIGIN": event.origin, "CODE": event.code}).problems] == required
    assert [tag for tag, _ in _refusal(example(event) | dict.fromkeys(required)).problems] == required


def test_source_differs_between_joining_and_leaving() -> None:
    parse_event(examples()["SUB", "N301"] | {"SOURCE": "WEB"})
    parse_event(examples()["SUB", "N302"] | {"SOURCE": "IMPORTED AS UNSUBSCRIBED"})
    with pytest.raises(
        InvalidEvent, match="must be 'MANAGER' or 'API' or 'MO' or 'IMPORTED AS UNSUBSCRIBED', not 'WEB'"
    ):
        parse_event(examples()["SUB", "N302"] | {"SOURCE": "WEB"})


@PROPERTY
@given(any_text)
def test_no_free_text_is_ever_refused(text: str) -> None:
    sent = parse_event(_with("TEXT", text)).to_mapping()["TEXT"]
    assert len(text) == len(sent)
    assert all(after in {before, "\ufffd"} for before, after in zip(text, sent, strict=True))


# -- refusals -------------------------------------------------------------------------------------


def test_one_error_names_every_tag_at_fault_in_document_order() -> None:
    error = _refusal(
        {
            "ORIGIN": "MMS_MO",
            "CODE": "N401",
            "zip": "10001",
            "\ud800": "no text",
            7: "no name",
            "CONTENT": {"FILE": ["http://a.example/", "ftp://a.example/", "x"]},
            "SPID": 32,
            "to": "+1",
            "FROM": "123",
            "from_": "123",
            "TRACKINGID": None,
        }
    )
    assert error.problems == (
        ("FROM", "given twice, as FROM and as from_"),
        ("TO", "must be a phone number as text: 3 to 15 digits, without + and without leading 00, not '+1'"),
        ("TRACKINGID", "required, but has no value"),
        ("SPID", "must be 1 to 255 digits as text (a number would lose leading zeros), not 32"),
        ("TIMESTAMP", "required, but has no value"),
        ("CONTENT", "FILE 2 must be an http or https URL, not 'ftp://a.example/'"),
        ("zip", "unknown tag; known: FROM, TO, KEYWORD, SUBJECT, TRACKINGID, SPID, TIMESTAMP, CONTENT"),
        (r"'\ud800'", "unknown tag"),
        ("7", "unknown tag"),
    )
    assert (error.origin, error.code) == ("MMS_MO", "N401")


def test_a_constructor_raises_the_same_error() -> None:
    with pytest.raises(InvalidEvent, match=r"TO: required, but has no value; TEXT: must be .* not 5"):
        SmsReceived(from_="123", text=5, received=WHEN)  # type: ignore[call-arg]


def test_n801_requires_the_numbers_of_the_pass() -> None:
    mapping = example(PassGenerated) | {"SERIALNUMBER": None, "PASSDATAID": None}
    assert [tag for tag, _ in _refusal(mapping).problems] == ["PASSDATAID", "SERIALNUMBER"]
    parse_event(mapping | {"CODE": "N802", "STATUSCODE": "N802"})


def test_a_pass_with_two_different_codes_is_refused() -> None:
    problems = _refusal(example(PassGenerated) | {"STATUSCODE": "N802"}).problems
    assert problems == (("STATUSCODE", "must be 'N801', not 'N802'"),)


@pytest.mark.parametrize(
    ("event", "tags", "words"),
    [
        ({}, ["ORIGIN", "CODE"], "ORIGIN: required, but has no value; known: SUB, EMAIL_SUB, SMS_MO"),
        ({"ORIGIN": "SMS", "CODE": "N211"}, ["ORIGIN"], "ORIGIN: unknown: 'SMS'; known: SUB, EMAIL_SUB"),
        ({"ORIGIN": "SMS_MO", "CODE": "N401"}, ["CODE"], "CODE: unknown: 'N401'; known: N211"),
        ({"ORIGIN": "SMS_MO"}, ["CODE"], "CODE: required, but has no value; known: N211"),
        ({"ORIGIN": [], "CODE": {}}, ["ORIGIN", "CODE"], "ORIGIN: unknown: []"),
        ({"ORIGIN": "GENERATE_PASS", "STATUSCODE": "N1"}, ["CODE"], "CODE: unknown: 'N1'; known: N801, N802"),
        ([], [""], "an event is an Event or a mapping of tags, not []"),
        (None, [""], "an event is an Event or a mapping of tags, not None"),
        (Event.model_construct(), [""], "Event is no event; use one of its subclasses"),
    ],
)
def test_what_is_no_row_of_the_catalogue_is_refused(event: Any, tags: list[str], words: str) -> None:
    error = _refusal(event)
    assert [tag for tag, _ in error.problems] == tags
    assert words in str(error)


def test_an_unknown_row_is_refused_by_name() -> None:
    assert event_type("SMS_MT", "N202") is SmsDelivered
    with pytest.raises(InvalidEvent, match="known: N201, E201, N202, E202"):
        event_type("SMS_MT", "N999")


def test_an_event_larger_than_its_budget_is_refused() -> None:
    mapping = example(MmsReceived)
    url = "http://a.example/" + "x" * 1000
    fitting = MAX_EVENT_BYTES // (len(url) + 3) - 1
    parse_event(mapping | {"CONTENT": [url] * fitting})
    error = _refusal(mapping | {"CONTENT": [url] * (fitting + 2)})
    assert [tag for tag, _ in error.problems] == [""]
    assert "at most 256 KiB" in str(error)


any_code = st.sampled_from([*ORIGINS, "N211", "N801"])
any_value = any_code | any_text | st.none() | st.integers() | st.floats() | st.binary()
any_nested = any_value | st.lists(any_value) | st.dictionaries(any_text, any_value)
any_key = st.sampled_from(["ORIGIN", "CODE", *ALL_TAGS]) | any_value


@PROPERTY
@given(st.dictionaries(any_key, any_nested), st.sampled_from([{}, {"ORIGIN": "SMS_MO", "CODE": "N211"}]))
def test_whatever_is_given_nothing_but_invalid_event_is_raised(mapping: Any, row: Any) -> None:
    error = _refusal({**mapping, **row, "TO": "not a number"})
    str(error).encode()
    assert "pydantic" not in str(error)
    assert error.__context__ is None


@pytest.mark.parametrize("number", range(6))
def test_a_quoted_value_is_short(number: int) -> None:
    value = ["x" * 999, "\x00" * 999, 10**1000, 10**5000, ["x" * 999] * 999, {1: "x" * 999}][number]
    assert len(quoted(value)) <= MAX_QUOTED
