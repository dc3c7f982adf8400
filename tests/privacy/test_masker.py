"""Masks: what is shown of a number, an address, a text and a document, and by what suffix a person is known."""

from __future__ import annotations

import pytest
from events import MO, examples
from lxml import etree

from postbacks.catalogue import EVENTS, parse_event
from postbacks.catalogue.xml import read, render
from postbacks.cli.examples import example
from postbacks.logs import PRIVATE
from postbacks.privacy import Masker
from postbacks.privacy.masker import KEYLESS
from postbacks.privacy.tags import EMAIL, FILE, KIND_OF, NUMBER, OPEN, REFERENCE, TEXT, kind_of, tag_of_person

MASK = Masker(b"a key of sixteen")
NUMBER_SHOWN = MASK.number("15552310137")


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("15552310137", "1555…37"),
        ("+1 (555) 231-0137", "1555…37"),
        ("5552310137", "555…37"),
        ("4915112345678", "4915…78"),
        ("12345678", "1…78"),
        ("1234567", "…67"),
        ("86717", "86717"),
        ("123456", "123456"),
    ],
)
def test_of_a_number_its_begin_and_two_digits_are_shown_and_five_never(number, shown):
    """A number of up to six digits is a short code, which is nobody's."""
    assert KEYLESS.number(number) == shown
    assert MASK.number(number).startswith(shown)


def test_one_person_has_one_suffix_in_any_spelling_and_another_with_another_key():
    """The suffix is of the number as searches compare it."""
    spellings = ("15552310137", "+1 555 231-0137", "0015552310137", "5552310137")
    assert len({MASK.number(spelling).rpartition("·")[2] for spelling in spellings}) == 1
    assert (
        MASK.email("Ann@Example.com").rpartition(" ")[2] == MASK.email("ann@example.COM").rpartition(" ")[2]
    )
    assert MASK.number("15552310137") != Masker(b"another key, long").number("15552310137")
    suffixes = {MASK.number(str(15550000000 + number)).rpartition("·")[2] for number in range(1000)}
    assert len(suffixes) > 990
    assert all(len(suffix) == 4 for suffix in suffixes)


def test_of_an_address_the_domain_is_shown_and_of_a_text_its_length():
    """Two equal texts look no more equal than two of one length: a Yes would be told by its suffix."""
    assert KEYLESS.email("jane.doe@example.com") == "j…@example.com"
    assert MASK.text("Yes") == MASK.text("Not") == "3 characters"
    assert MASK.text("x") == "1 character"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("call +1 (555) 231-0137 now", "call 1555…37 now"),
        ('{"to":15552310137,"mail":"ann%40example.com"}', '{"to":1555…37,"mail":"a…@example.com"}'),
        ("to=15552310137&x=1", "to=1555…37&x=1"),
        ("n15552310137n", "n1555…37n"),
        ("555.231.0137", "555…37"),
        ("unknown recipient <ann@example.com>.", "unknown recipient <a…@example.com>."),
        ("10.1.22.33 said 503 at 2026-11-28T05:41:08Z", "10.1.22.33 said 503 at 2026-11-28T05:41:08Z"),
        ("1,204 wait since 2026-11-28 14:30", "1,204 wait since 2026-11-28 14:30"),
        ("id 7c0e1f3a-1234-4123-8765-123456789012", "id 7c0e1f3a-1234-4123-8765-123456789012"),
        ("no connection within 10 s", "no connection within 10 s"),
    ],
)
def test_numbers_and_addresses_within_words_are_masked_and_times_and_ids_stay(words, shown):
    """Words of a receiver or a carrier, masked twice as once."""
    assert KEYLESS.words(words) == shown
    assert KEYLESS.words(shown) == shown
    assert MASK.words(MASK.words(words)) == MASK.words(words)


@pytest.mark.parametrize(
    ("why", "shown"),
    [
        ("asked by +1 555 231 0137, ann@example.com", "asked by 1555…37, a…@example.com"),
        ("rang from 5552310137", "rang from 555…37"),
        ("tel +49 30 12345", "tel 49…45"),
        ("ticket 4711234, INC00471123, case 20261128", "ticket 4711234, INC00471123, case 20261128"),
        ("since 2026-11-28 14:30", "since 2026-11-28 14:30"),
    ],
)
def test_in_a_reason_persons_are_masked_and_tickets_stay(why, shown):
    """A number of fewer than ten digits without a + is a ticket's; masked twice as once."""
    assert KEYLESS.why(why) == shown
    assert MASK.why(MASK.why(why)) == MASK.why(why)


def test_an_answer_that_repeats_what_was_sent_is_masked():
    """As XML, as JSON, and where the answer was cut off in the middle of it."""
    document = render(parse_event(MO | {"TEXT": "I am <Ann> & I live here"}))
    for answer in (
        document.decode(),
        document.decode()[:150],
        'bad text "I am <Ann> & I live here"',
        "bad: I am <Ann> & I liv",
        "text=I+am+%3CAnn%3E+%26+I+live+here&to=15552312102",
    ):
        shown = MASK.answer(answer, document)
        assert not {"Ann", "15552312102"} & set(
            shown.replace("<", " ").replace("&lt;", " ").replace("&gt;", " ").split()
        )
        assert "I am" not in shown
    assert MASK.answer("db pool exhausted", document) == "db pool exhausted"
    assert MASK.answer("bad: <TEXT>I am Ann, and") == "bad: <TEXT>13 characters"


def test_every_tag_of_the_catalogue_has_a_kind():
    """A new tag decides in privacy/tags.py what of it is personal; one that is not there is taken for a text."""
    names = {"ORIGIN", "CODE"}
    for event in EVENTS.values():
        for tag in event.tags:
            names.add(tag.form.item[0] if tag.form.item else tag.name)
    assert names == set(KIND_OF)
    assert kind_of("NEWTAG") == TEXT


def test_every_event_that_is_about_a_person_names_one():
    """A new origin decides in privacy/tags.py which tag names the person; the content of an MMS is nobody's."""
    for (origin, code), event in EVENTS.items():
        personal = {tag.name for tag in event.tags if kind_of(tag.name) in {NUMBER, EMAIL, REFERENCE}}
        assert (tag_of_person(origin) in personal) is bool(personal), (origin, code)
    assert tag_of_person("NEW_ORIGIN") == ""


def test_the_log_masks_the_same_tags():
    """logs.py stands below and has names of its own."""
    personal = {tag for tag, kind in KIND_OF.items() if kind in {NUMBER, EMAIL, TEXT, REFERENCE, FILE}}
    assert {name for name in PRIVATE if name.isupper()} == personal
    fields = {tag.field for event in EVENTS.values() for tag in event.tags if tag.name in personal}
    assert {name for name in PRIVATE if not name.isupper()} == fields


@pytest.mark.parametrize("row", EVENTS)
def test_a_masked_document_is_well_formed_and_keeps_what_is_open(row):
    """Tags and their order, and the values of those that say nothing of a person."""
    event = EVENTS[row]
    document = render(parse_event(examples()[row]))
    masked = MASK.document(document).encode()
    assert [element.tag for element in etree.fromstring(masked).iter()] == [
        element.tag for element in etree.fromstring(document).iter()
    ]
    shown, sent = read(masked), example(event)
    for tag, value in sent.items():
        if kind_of(tag) == OPEN and isinstance(value, str):
            assert shown[tag] == value
        if kind_of(tag) in {EMAIL, TEXT, REFERENCE, FILE}:
            assert shown[tag] != value


def test_what_is_no_document_is_told_by_its_length():
    """The message of another language, and nothing at all."""
    assert MASK.document(b'{"TEXT": "hello"}') == "(17 bytes)"
    assert MASK.document(b"") == ""
