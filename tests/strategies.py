"""Hypothesis strategies, made from the event types.

A new row needs nothing here, unless it brings a form of value that no row had before.
"""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from postbacks.catalogue import EVENTS, Event, Tag, parse_event
from postbacks.catalogue import values as forms

if TYPE_CHECKING:
    from postbacks.catalogue.values import Form

#: Settings of property tests: the same cases every run, and nothing written into the working directory.
#: How slowly a busy machine draws examples says nothing of what is tested.
PROPERTY = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)


def form(annotation: object) -> Form:
    """Return the form of one of the types of ``postbacks.catalogue.values``."""
    return get_args(annotation)[1]


#: Any text at all: every code point, surrogates among them.
any_text = st.text(st.characters(exclude_categories=()), max_size=60)

_xml_text = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60).map(
    lambda text: text.replace("\ufffe", "").replace("\uffff", "")
)
_offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_moments = st.datetimes(timezones=_offsets)
_words = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12)
_urls = st.builds("{}://{}.example/{}".format, st.sampled_from(["http", "https", "HTTP"]), _words, _words)

_STRATEGIES: dict[Form, st.SearchStrategy[Any]] = {
    form(forms.PhoneNumber): st.from_regex(r"(0[1-9]|[1-9][0-9])[0-9]{1,13}", fullmatch=True),
    form(forms.SenderMask): st.text("abcXYZ019 &'+-._", max_size=11),
    form(forms.Timestamp): _moments | _moments.map(lambda moment: moment.isoformat()),
    form(forms.OpaqueId): _xml_text | st.integers(),
    form(forms.CarrierId): st.text("0123456789", min_size=1, max_size=8),
    form(forms.Email): st.builds("{}@{}.example".format, _words, _words),
    form(forms.FreeText): any_text,
    form(forms.Content): st.lists(_urls, min_size=1, max_size=3).map(lambda urls: {"FILE": urls}),
}


def _value(tag: Tag) -> st.SearchStrategy[Any]:
    return st.sampled_from(tag.form.values) if tag.form.values else _STRATEGIES[tag.form]


def mappings(event: type[Event]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate mappings of one row that the catalogue allows."""
    return st.fixed_dictionaries(
        {
            "ORIGIN": st.just(event.origin),
            "CODE": st.just(event.code),
            **{tag.name: _value(tag) for tag in event.tags if tag.required},
        },
        optional={tag.name: _value(tag) for tag in event.tags if not tag.required},
    )


def any_mapping() -> st.SearchStrategy[dict[str, Any]]:
    """Generate mappings of all rows."""
    return st.sampled_from(list(EVENTS.values())).flatmap(mappings)


def any_event() -> st.SearchStrategy[Event]:
    """Generate events of all rows."""
    return any_mapping().map(parse_event)
