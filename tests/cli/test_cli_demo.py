"""The demo's check: it finds whatever is not as it has to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postbacks.catalogue import EVENTS
from postbacks.catalogue.xml import render
from postbacks.cli import demo_plan
from postbacks.cli.demo_plan import DEAD_PORT, NO_CONTENT, OK, SLOW, TWICE, journeys, problems_of
from postbacks.devtools.receiver import Received
from postbacks.ledger.record import Attempt, Record


def travelled(kind, group=None):
    """A journey of this kind that went as it has to, and what its receiver got."""
    journey = next(
        each for each in journeys() if each.kind is kind and (group is None or each.event.group == group)
    )
    journey.postback_id = "one"
    attempts = tuple(
        Attempt(number, 1000 * number, outcome, status)
        for number, (outcome, status) in enumerate(kind.attempts, start=1)
    )
    journey.record = Record(
        id="one", state=kind.state, account=kind.account, group=journey.event.group, origin=journey.event.origin,
        code=journey.event.code, url="http://x.example/", xml=b"", created_ms=0, sequence=1, reason="",
        attempts=attempts, failures=0, next_ms=None, ended_ms=9000, raw=None,
    )  # fmt: skip
    received = [
        Received(
            number=attempt.number, at=0.0, monotonic_s=2.0 * attempt.number, method="POST",
            path=kind.path(journey.event.group),
            headers={
                "postback-id": "one",
                "postback-attempt": str(attempt.number),
                "content-type": "application/xml; charset=utf-8",
            },
            body=render(journey.event), connection=1,
        )
        for attempt in attempts
    ]  # fmt: skip
    celery_state = "SUCCESS" if kind.state == "delivered" else "FAILURE"
    return journey, [] if kind is DEAD_PORT else received, celery_state


def test_every_row_travels_to_a_receiver_and_every_kind_of_url_is_there():
    """The dead port comes on top: what goes there is never seen."""
    plan = journeys()
    rows = [(each.event.origin, each.event.code) for each in plan if each.kind is not DEAD_PORT]
    assert sorted(rows) == sorted(EVENTS)
    assert {each.kind for each in plan} == {OK, TWICE, SLOW, NO_CONTENT, DEAD_PORT}
    paths = {(each.event.group, each.kind.path(each.event.group)) for each in plan}
    assert {("mo", "/mo"), ("pass", "/pass"), ("pass", "/postbacks"), ("mt", "/postbacks")} <= paths


@pytest.mark.parametrize("kind", demo_plan.KINDS, ids=lambda kind: kind.account)
def test_what_goes_right_has_no_fault(kind):
    assert problems_of(*travelled(kind)) == []


def request(**changes):
    return lambda journey, received, state: (journey, [replace(received[0], **changes), *received[1:]], state)


def record(**changes):
    def change(journey, received, state):
        journey.record = replace(journey.record, **changes)
        return journey, received, state

    return change


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (OK, record(state="dead"), "state is 'dead'"),
        (OK, record(state="parked"), "has not ended in time (parked)"),
        (OK, lambda journey, received, _: (journey, received, "RETRY"), "AsyncResult.state is 'RETRY'"),
        (TWICE, record(attempts=(Attempt(1, 0, "delivered", 200),)), "attempts is"),
        (NO_CONTENT, record(state="delivered"), "state is 'delivered', not 'dead'"),
        (OK, lambda journey, _, state: (journey, [], state), "Postback-Attempt is []"),
        (OK, lambda journey, received, state: (journey, received * 2, state), "Postback-Attempt is [1, 1]"),
        (OK, request(method="PUT"), "method of attempt 1 is 'PUT'"),
        (OK, request(path="/mo"), "path of attempt 1 is '/mo'"),
        (OK, request(body=b"<POSTBACK><ORIGIN>SUB</ORIGIN></POSTBACK>"), "CODE of attempt 1 is None"),
        (OK, request(body=b"no XML"), "not an XML document"),
        (TWICE, request(monotonic_s=3.5), "attempt 2 came 0.50 s after the one before"),
        (DEAD_PORT, lambda journey, _, state: (journey, travelled(OK)[1], state), "POSTs received is 1"),
    ],
)
def test_whatever_goes_wrong_is_a_fault(kind, change, words):
    assert any(words in fault for fault in problems_of(*change(*travelled(kind))))


def test_a_byte_that_changes_no_tag_is_a_fault():
    journey, received, state = travelled(OK)
    body = received[0].body.replace(b"</ORIGIN>", b"</ORIGIN >")
    assert problems_of(journey, [replace(received[0], body=body)], state) == [
        "the bytes of attempt 1 are not those of postbacks render"
    ]


def test_a_tag_that_changed_is_named():
    journey, received, state = travelled(OK, "mo")
    body = received[0].body.replace(b"STOP", b"GO")
    assert any(
        fault.startswith("TEXT of attempt 1 is 'GO")
        for fault in problems_of(journey, [replace(received[0], body=body)], state)
    )
