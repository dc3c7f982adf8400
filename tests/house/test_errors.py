"""Errors travel: through pickle to another process, through Celery's results to another program."""

from __future__ import annotations

import json
import pickle

import pytest
from celery.backends.base import BaseBackend
from celery.utils.serialization import get_pickleable_exception, get_pickled_exception

from postbacks import errors
from postbacks.app import app

FACTS = ("Postback 1 failed: refused", "refused", None, 3, "2026-01-02T03:04:05.000Z")

ERRORS = [
    errors.InvalidEvent([("TO", "must be digits, not 'x'"), ("", "too much")], origin="SMS_MO", code="N211"),
    errors.InvalidEvent([("CODE", "unknown: 'N999'")]),
    errors.DeliveryError(*FACTS),
    errors.PostbackFailed(*FACTS),
    errors.PostbackDead("Postback 1 is dead: after 6 attempts", "status", 500, 6),
    errors.PostbackSkipped("Postback 1 was skipped: origin_off", "origin_off"),
    errors.InvalidUrl("The URL 'x' is no absolute http or https URL."),
    errors.InvalidAccount("'' is no account name."),
    errors.BrokerUnreachable("The broker does not answer."),
    errors.UnsupportedOption("send_postback cannot take link=."),
]


def through_pickle(error):
    """As multiprocessing and the prefork pool send an exception."""
    return pickle.loads(pickle.dumps(error))


def through_the_pool(error):
    """As Celery makes an exception fit for the prefork pool."""
    return get_pickled_exception(through_pickle(get_pickleable_exception(error)))


def through_json(error):
    """As a Celery result backend stores an exception: JSON, whose tuples come back as lists."""
    backend = BaseBackend(app, serializer="json")
    stored = json.loads(json.dumps(backend.prepare_exception(error, "json")))
    return backend.exception_to_python(stored)


@pytest.mark.parametrize("travel", [through_pickle, through_the_pool, through_json])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was_sent(error, travel):
    """Same class, same sentence, same facts."""
    arrived = travel(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_an_invalid_event_says_every_fault_in_one_sentence():
    """The row, then each tag and why; a fault of the whole has no tag."""
    error = errors.InvalidEvent([("TO", "bad"), ("", "too large")], origin="SMS_MO", code="N211")
    assert str(error) == "event SMS_MO N211 is not in the catalogue's form: TO: bad; too large"
    assert error.problems == (("TO", "bad"), ("", "too large"))


def test_every_error_is_in_the_tree_of_the_modules_docstring_and_the_other_way_round():
    """The tree has one root, and is true."""
    classes = {name: cls for name, cls in vars(errors).items() if isinstance(cls, type)}
    assert all(issubclass(cls, errors.PostbacksError) for cls in classes.values())
    tree = errors.__doc__.split("::", 1)[1].splitlines()
    drawn = {line.strip("│├└─ ").split()[0] for line in tree if line.strip()}
    assert drawn == set(classes)


def test_an_event_of_countless_unknown_tags_is_told_in_few_words():
    """The text names fifty and counts the others; the attribute has all of them."""
    error = errors.InvalidEvent([(f"TAG{number}", "unknown tag") for number in range(10_000)])
    assert str(error).endswith("TAG49: unknown tag; and 9,950 more")
    assert len(error.problems) == 10_000
