"""Persons of postbacks that were found: read in the history and in the broker, and by the catalogue's tags."""

from __future__ import annotations

import pytest
from events import EVENT, MO, MT, example
from records import ACCEPTED_MS, delivered, make_document, make_record
from sqlalchemy import Engine

from postbacks import keys
from postbacks.catalogue import EVENTS, parse_event
from postbacks.catalogue.xml import render
from postbacks.history import Query, persons, search
from postbacks.history.persons import person_of, records_of
from postbacks.history.query import Postback
from postbacks.history.schema import HOUR_MS
from postbacks.ledger.record import Record
from postbacks.privacy import Masker
from postbacks.settings import Settings

MASK = Masker(b"k" * 32)
EMAIL = {"ORIGIN": "EMAIL_SUB", "CODE": "N303", "EMAIL": "Ann@example.com", "CAMPAIGNID": "7"}
PASS = example(EVENTS["GENERATE_PASS", "N802"])


def record_of(event: dict[str, object]) -> Record:
    """Make the record of an event."""
    fields = {"origin": event["ORIGIN"], "code": event["CODE"], "document": render(parse_event(event))}
    return Record.from_hash(*make_record("x", **fields))


@pytest.mark.parametrize(
    ("event", "person", "masked"),
    [
        (EVENT, "15552312102", "1555…02{number}"),
        (MO, "15552312102", "1555…02{number}"),
        (MT | {"FROM": "15550000000"}, "15552312102", "1555…02{number}"),
        (MT | {"TO": "28444"}, "28444", "28444"),
        (EMAIL, "Ann@example.com", "A…@example.com{email}"),
        (PASS | {"REFERENCEVALUE": "5552312102"}, "5552312102", "555…02{number}"),
        (PASS | {"REFERENCEVALUE": "ann@example.com"}, "ann@example.com", "a…@example.com{email}"),
        (PASS | {"REFERENCEVALUE": "member <7>"}, "member <7>", "10 characters{reference}"),
        ({"ORIGIN": "MMS_MT", "CODE": "N003", "MMSID": "7"}, "", ""),
    ],
    ids=lambda value: value["ORIGIN"] if isinstance(value, dict) else value,
)
def test_the_person_is_whom_the_event_is_about_and_one_person_has_one_suffix(event, person, masked):
    record = record_of(event)
    values = {"number": "15552312102", "email": "ann@example.com", "reference": "member <7>"}
    suffixes = {kind: MASK.suffix(kind, value) for kind, value in values.items()}
    assert (person_of(record, None), person_of(record, MASK)) == (person, masked.format_map(suffixes))


def test_what_nobody_can_read_is_about_nobody():
    unreadable = Record.from_hash(*make_record("x", origin="", code="", group="", document=b"", raw=b"{"))
    newer = Record.from_hash(*make_record("x", origin="RCS_MT"))
    assert (person_of(unreadable, MASK), person_of(newer, None)) == ("", "")


def test_the_record_is_the_historys_and_the_brokers_where_it_is_open_or_not_recorded(
    database: Engine, writer, rig, monkeypatch
):
    """Ask the broker for no other; in pages, of which the last is a part of one."""
    monkeypatch.setattr(persons, "_PAGE", 2)
    ended, opened = {"accepted_ms": ACCEPTED_MS + 1}, {"accepted_ms": ACCEPTED_MS + 2}
    writer.write(
        [
            delivered("again", document=make_document(to="15550000001")),
            delivered("ended", document=make_document(to="15550000002"), **ended),
            make_record("open", document=make_document(to="15550000003"), **opened),
        ]
    )

    def hold(number: str, record: tuple[str, dict[bytes, bytes]]) -> None:
        fields = record[1] | {b"xml": make_document(to=number)}
        rig.client.hset(keys.record(record[0]), mapping=fields)

    hold("15550000008", delivered("ended", **ended))  # the history has its end
    hold("15550000009", delivered("open", **opened))
    hold("15550000010", make_record("again", accepted_ms=ACCEPTED_MS + 3))  # another acceptance of its id
    new = Postback.of_record(Record.from_hash(*make_record("new", accepted_ms=ACCEPTED_MS + 4)))
    hold("15550000011", make_record("new", accepted_ms=new.accepted_ms))
    gone = Postback.of_record(Record.from_hash(*make_record("gone")))

    postbacks = [new, gone, *search(Query(), engine=database).postbacks]
    assert [postback.id for postback in postbacks] == ["new", "gone", "open", "ended", "again"]
    found = [
        record and person_of(record, None)
        for record in records_of(postbacks, client=rig.client, engine=database)
    ]
    assert found == ["15550000011", None, "15550000009", "15550000002", "15550000001"]


def test_a_person_goes_with_the_document(database: Engine, writer):
    day_ms = 24 * HOUR_MS
    writer.write([delivered("pruned"), delivered("kept", accepted_ms=ACCEPTED_MS + 2 * day_ms)])
    settings = Settings(history_documents_days=2)
    while writer.prune(ACCEPTED_MS + 3 * day_ms, settings, 100):
        pass
    postbacks = search(Query(), engine=database).postbacks
    found = {record.id: person_of(record, MASK) for record in records_of(postbacks, engine=database)}
    assert found == {"kept": MASK.number("15552310137"), "pruned": ""}
