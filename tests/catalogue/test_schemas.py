"""Both schemas take every document of the catalogue, and no other."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from events import example, examples, minimal_examples
from hypothesis import given
from lxml import etree
from strategies import PROPERTY, any_event

from postbacks.catalogue import EVENTS, Event, MmsReceived, SmsReceived, Unsubscribed, parse_event
from postbacks.catalogue.schemas import relax_ng, xsd
from postbacks.catalogue.xml import render
from postbacks.errors import InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Callable


@cache
def _relax_ng() -> etree.RelaxNG:
    return etree.RelaxNG(etree.fromstring(relax_ng()))


@cache
def _xsd(origin: str, code: str) -> etree.XMLSchema:
    return etree.XMLSchema(etree.fromstring(xsd(origin, code)))


def _verdicts(event: type[Event], root: etree._Element) -> tuple[bool, bool]:
    return _relax_ng().validate(root), _xsd(event.origin, event.code).validate(root)


@pytest.mark.parametrize("mapping", [*examples().values(), *minimal_examples().values()])
def test_both_schemas_take_the_example_of_every_row(mapping: dict[str, Any]) -> None:
    root = etree.fromstring(render(parse_event(mapping)))
    _relax_ng().assertValid(root)
    _xsd(mapping["ORIGIN"], mapping["CODE"]).assertValid(root)


@PROPERTY
@given(any_event())
def test_both_schemas_take_every_document(event: Event) -> None:
    root = etree.fromstring(render(event))
    _relax_ng().assertValid(root)
    _xsd(event.origin, event.code).assertValid(root)


def _set(tag: str, text: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        next(root.iter(tag)).text = text

    return change


def _drop(tag: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        element = next(root.iter(tag))
        element.getparent().remove(element)

    return change


def _add(tag: str) -> Callable[[etree._Element], None]:
    return lambda root: etree.SubElement(root, tag)


def _swap_first_two(root: etree._Element) -> None:
    root.insert(0, root[1])


@pytest.mark.parametrize(
    ("event", "change"),
    [
        (SmsReceived, _swap_first_two),
        (SmsReceived, _drop("ORIGIN")),
        (SmsReceived, _drop("TO")),
        (SmsReceived, _add("TO")),
        (SmsReceived, _add("ZIP")),
        (SmsReceived, _set("CODE", "N212")),
        (SmsReceived, _set("CODE", " N211 ")),
        (SmsReceived, _set("FROM", "+15552312102")),
        (SmsReceived, _set("FROM", "0015552312102")),
        (SmsReceived, _set("RECEIVED", "2013-11-05T05:41:08")),
        (SmsReceived, _set("TRANSACTIONID", "x" * 256)),
        (SmsReceived, _set("TEXT", "x" * 65537)),
        (Unsubscribed, _set("SOURCE", "WEB")),
        (MmsReceived, _set("SPID", "3x")),
        (MmsReceived, _set("FILE", "ftp://a.example/")),
        (MmsReceived, lambda root: [root[-1].remove(file) for file in list(root[-1])]),
        (EVENTS["EMAIL_SUB", "N303"], _set("EMAIL", "jane")),
        (EVENTS["SMS_MT", "N201"], _set("STATUS", "Message Failed")),
        (EVENTS["SMS_MT", "N201"], _set("FROM_MASK", "twelve chars")),
        (EVENTS["MMS_MT", "N101"], _set("SENTAS", "RCS")),
        (EVENTS["GENERATE_PASS", "N801"], _drop("STATUSCODE")),
        (EVENTS["GENERATE_PASS", "N801"], _drop("SERIALNUMBER")),
        (EVENTS["GENERATE_PASS", "N801"], _set("STATUSCODE", "N802")),
    ],
)
def test_both_schemas_refuse_a_changed_document(
    event: type[Event], change: Callable[[etree._Element], Any]
) -> None:
    root = etree.fromstring(render(parse_event(example(event))))
    assert _verdicts(event, root) == (True, True)
    change(root)
    assert _verdicts(event, root) == (False, False)


@pytest.mark.parametrize("row", EVENTS)
def test_a_schema_says_what_its_row_means(row: tuple[str, str]) -> None:
    assert EVENTS[row].meaning in xsd(*row)
    assert EVENTS[row].meaning in relax_ng()


def test_an_unknown_row_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidEvent, match="CODE: unknown: 'N999'; known: N211"):
        xsd("SMS_MO", "N999")
