"""Schemas of the XML documents, for the developers of receivers; derived from the event types.

They are as strict as their languages allow. They cannot say that a date is in the calendar, nor that free text is
limited by bytes rather than by characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxml import etree
from lxml.builder import ElementMaker

from postbacks.catalogue import EVENTS, event_type
from postbacks.catalogue.values import XML_TEXT, Form

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postbacks.catalogue import Event, Tag

_XS = "http://www.w3.org/2001/XMLSchema"
_RNG = "http://relaxng.org/ns/structure/1.0"
_NOTES = "http://relaxng.org/ns/compatibility/annotations/1.0"

_xs = ElementMaker(namespace=_XS, nsmap={"xs": _XS})
_rng = ElementMaker(namespace=_RNG, nsmap={None: _RNG, "a": _NOTES})
_notes = ElementMaker(namespace=_NOTES, nsmap={"a": _NOTES})


def xsd(origin: str, code: str) -> str:
    """Return the XML Schema (1.0) of a row's document.

    Raises:
        InvalidEvent: the catalogue has no such row; names the known ones.
    """
    event = event_type(origin, code)
    tags = [
        _xs.element(_xsd_type(Form("", values=(value,))), name=name)
        for name, value in (("ORIGIN", origin), ("CODE", code))
    ]
    root = _xs.element(
        _xs.annotation(_xs.documentation(_headline(event))),
        _xs.complexType(_xs.sequence(*tags, *map(_xsd_tag, event.tags))),
        name="POSTBACK",
    )
    return _text(_xs.schema(root))


def _xsd_tag(tag: Tag) -> etree._Element:
    attributes = {"name": tag.name} if tag.required else {"name": tag.name, "minOccurs": "0"}
    annotation = _xs.annotation(_xs.documentation(tag.form.words))
    if tag.form.item is None:
        return _xs.element(annotation, _xsd_type(tag.form), **attributes)
    name, form = tag.form.item
    items = _xs.element(
        _xs.annotation(_xs.documentation(form.words)), _xsd_type(form), name=name, maxOccurs="unbounded"
    )
    return _xs.element(annotation, _xs.complexType(_xs.sequence(items)), **attributes)


def _xsd_type(form: Form) -> etree._Element:
    facets = [getattr(_xs, name)(value=value) for name, value in _facets(form)]
    values = [_xs.enumeration(value=value) for value in form.values]
    return _xs.simpleType(_xs.restriction(*facets, *values, base="xs:string"))


def relax_ng() -> str:
    """Return one RELAX NG schema (XML syntax) that every document of the catalogue is valid against."""
    rows = [_rng.ref(name=_row_name(event)) for event in EVENTS.values()]
    return _text(
        _rng.grammar(
            _rng.start(_rng.element(_rng.choice(*rows), name="POSTBACK")),
            *(
                _rng.define(
                    _notes.documentation(_headline(event)),
                    _rng.element(_rng_value(event.origin), name="ORIGIN"),
                    _rng.element(_rng_value(event.code), name="CODE"),
                    *map(_rng_tag, event.tags),
                    name=_row_name(event),
                )
                for event in EVENTS.values()
            ),
            datatypeLibrary=f"{_XS}-datatypes",
        )
    )


def _rng_tag(tag: Tag) -> etree._Element:
    if tag.form.item is None:
        content = _rng_type(tag.form)
    else:
        name, form = tag.form.item
        content = _rng.oneOrMore(_rng.element(_notes.documentation(form.words), _rng_type(form), name=name))
    element = _rng.element(_notes.documentation(tag.form.words), content, name=tag.name)
    return element if tag.required else _rng.optional(element)


def _rng_type(form: Form) -> etree._Element:
    if form.values:
        return _rng.choice(*map(_rng_value, form.values))
    return _rng.data(*(_rng.param(value, name=name) for name, value in _facets(form)), type="string")


def _rng_value(value: str) -> etree._Element:
    # The default type is token, which allows white space around the value.
    return _rng.value(value, type="string")


def _row_name(event: type[Event]) -> str:
    # Both parts are needed, as origins have codes in common.
    return f"{event.origin}.{event.code}"


def _facets(form: Form) -> Iterator[tuple[str, str]]:
    if form.max_length is not None:
        yield "maxLength", str(form.max_length)
    if form.pattern not in {None, XML_TEXT}:  # every XML document keeps to XML_TEXT
        yield "pattern", str(form.pattern)


def _headline(event: type[Event]) -> str:
    return f"{event.origin} {event.code}: {event.meaning} ({event.__name__})"


def _text(schema: etree._Element) -> str:
    return etree.tostring(schema, encoding="unicode", pretty_print=True)
