"""Documents: written, read back, and safe to read from strangers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from events import example, examples, minimal_examples
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from strategies import PROPERTY, any_text, form, mappings

from postbacks.catalogue import EVENTS, Event, MmsReceived, SmsReceived, parse_event
from postbacks.catalogue.values import FreeText
from postbacks.catalogue.xml import read, render
from postbacks.errors import InvalidEvent

if TYPE_CHECKING:
    from postbacks.catalogue import Tag

FREE_TEXT_TAGS = [
    (event, tag) for event in EVENTS.values() for tag in event.tags if tag.form == form(FreeText)
]

# Written out here once more, so that the test does not take the code's word for what XML 1.0 forbids.
NO_XML_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def test_a_document_is_as_the_catalogue_says() -> None:
    event = parse_event(example(MmsReceived, required_only=True))
    assert render(event) == (
        b"<?xml version='1.0' encoding='UTF-8'?>\n"
        b"<POSTBACK><ORIGIN>MMS_MO</ORIGIN><CODE>N401</CODE><FROM>15552312102</FROM><TO>86717</TO>"
        b"<TRACKINGID>MMS_b1b5c7a8-0d0c-11e3</TRACKINGID><SPID>0032</SPID>"
        b"<TIMESTAMP>2013-11-05T05:41:08-05:00</TIMESTAMP>"
        b"<CONTENT><FILE>https://cdn.example/1.jpg</FILE>"
        b"<FILE>https://cdn.example/2.smil?x=1&amp;y=2</FILE></CONTENT></POSTBACK>"
    )


@pytest.mark.parametrize("mapping", [*examples().values(), *minimal_examples().values()])
def test_a_document_has_one_element_a_tag_in_order(mapping: dict[str, Any]) -> None:
    root = etree.fromstring(render(parse_event(mapping)))
    assert root.tag == "POSTBACK"
    assert [element.tag for element in root] == list(mapping)


@pytest.mark.parametrize("event_type", EVENTS.values(), ids=lambda event: event.__name__)
@settings(PROPERTY, max_examples=20)
@given(st.data())
def test_every_document_reads_back_as_its_event(event_type: type[Event], data: st.DataObject) -> None:
    event = parse_event(data.draw(mappings(event_type)))
    assert read(render(event)) == event.to_mapping()
    assert parse_event(read(render(event))) == event


def by_lxml(event: Event) -> bytes:
    """The same document, as lxml writes it."""
    root = etree.Element("POSTBACK")
    etree.SubElement(root, "ORIGIN").text = event.origin
    etree.SubElement(root, "CODE").text = event.code
    for name, value in list(event.to_mapping().items())[2:]:
        element = etree.SubElement(root, name)
        if isinstance(value, str):
            element.text = value
        else:
            for inner, each in ((inner, each) for inner, several in value.items() for each in several):
                etree.SubElement(element, inner).text = each
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True)


@pytest.mark.parametrize("event_type", EVENTS.values(), ids=lambda event: event.__name__)
@settings(PROPERTY, max_examples=20)
@given(st.data())
def test_a_document_is_lxmls_byte_for_byte(event_type: type[Event], data: st.DataObject) -> None:
    """Whatever is in it."""
    event = parse_event(data.draw(mappings(event_type)))
    assert render(event) == by_lxml(event)


def test_every_character_is_written_as_lxml_writes_it() -> None:
    """All that XML allows, the markup and the line ends among them."""
    allowed = [chr(number) for number in range(0x110000) if not NO_XML_CHARACTER.match(chr(number))]
    for at in range(0, len(allowed), 10_000):
        event = parse_event(example(SmsReceived) | {"TEXT": "".join(allowed[at : at + 10_000])})
        assert render(event) == by_lxml(event)


def test_the_same_event_is_the_same_bytes() -> None:
    event = parse_event(example(SmsReceived))
    assert render(event) == render(parse_event(event.to_mapping()))


@PROPERTY
@given(st.sampled_from(FREE_TEXT_TAGS), any_text)
def test_any_text_arrives_with_what_xml_forbids_replaced(where: tuple[type[Event], Tag], text: str) -> None:
    event, tag = where
    document = render(parse_event(example(event) | {tag.name: text}))
    assert NO_XML_CHARACTER.sub("\ufffd", text) == (etree.fromstring(document).findtext(tag.name) or "")


@pytest.mark.parametrize(
    "text", ["a\rb", "a\r\nb", "\r", "\n\r\t ", " a ", "", "]]>", "<&>\"'", "&#13;", "\x7f\x85\u2028"]
)
def test_white_space_and_markup_survive_the_round_trip(text: str) -> None:
    assert read(render(parse_event(example(SmsReceived) | {"TEXT": text})))["TEXT"] == text


@pytest.mark.parametrize("character", [chr(code) for code in [*range(0x20), 0xD800, 0xDFFF, 0xFFFE, 0xFFFF]])
def test_each_character_that_phones_should_not_send_is_sent_all_the_same(character: str) -> None:
    expected = character if character in "\t\n\r" else "\ufffd"
    assert read(render(parse_event(example(SmsReceived) | {"TEXT": character})))["TEXT"] == expected


def test_64_kib_of_replaced_and_escaped_text_reads_back() -> None:
    text = "\r<&" * 20_000 + "\x00" * 1_000
    assert (
        text.replace("\x00", "\ufffd")
        == read(render(parse_event(example(SmsReceived) | {"TEXT": text})))["TEXT"]
    )


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "not an XML document"),
        (b"<POSTBACK>", "not an XML document"),
        (b"<POSTBACK>&bomb;</POSTBACK>", "not an XML document"),
        (b"<!DOCTYPE POSTBACK><POSTBACK/>", "DOCTYPE"),
        (b'<!DOCTYPE POSTBACK [<!ENTITY a "b">]><POSTBACK><TEXT>&a;</TEXT></POSTBACK>', "DOCTYPE"),
        (b'<!DOCTYPE POSTBACK SYSTEM "file:///etc/passwd"><POSTBACK/>', "DOCTYPE"),
        (b'<POSTBACK xmlns="http://a.example/"/>', "root element"),
        (b"<postback/>", "root element"),
        (b"<POSTBACK><TO>1</TO><TO>2</TO></POSTBACK>", "TO: is in the document twice"),
    ],
)
def test_a_document_that_is_no_postback_is_refused(document: bytes, why: str) -> None:
    with pytest.raises(InvalidEvent, match=why):
        read(document)


def test_comments_and_processing_instructions_are_no_tags() -> None:
    assert read(b"<POSTBACK><!-- x --><?y z?><TEXT>ST<!-- x -->OP</TEXT></POSTBACK>") == {"TEXT": "STOP"}
