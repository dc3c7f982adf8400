"""Calls that wait for a commit of Django: real transactions, on SQLite."""

from __future__ import annotations

import json
import subprocess
import sys

import django_shop
import pytest
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.db.utils import ConnectionDoesNotExist
from events import EVENT, MO
from helpers import environment, refusing_port

from postbacks import BrokerUnreachable, InvalidAccount, InvalidEvent, InvalidUrl, keys, send_postback
from postbacks.errors import UnsupportedOption
from postbacks.testing import captured_postbacks


class Undone(Exception):
    """Raised to roll a transaction back."""


def undo(call):
    """Make a call in a transaction, or in a savepoint, that is rolled back."""
    with transaction.atomic():
        call()
        raise Undone


@pytest.fixture
def queue(broker):
    """The ids that stand in the queue, oldest first."""
    django_shop.set_up()
    with broker.client() as client:
        yield lambda: [json.loads(raw)["headers"]["id"] for raw in client.lrange(keys.QUEUE, 0, -1)][::-1]
    connections.close_all()


#: name -> the call that is made inside a transaction
CALLS = {
    "delay_on_commit": lambda: send_postback.delay_on_commit("acme", EVENT),
    "delay_on_commit with names": lambda: send_postback.delay_on_commit(
        account="acme", event=EVENT, url="http://a.example/", using="default"
    ),
    "apply_async_on_commit": lambda: send_postback.apply_async_on_commit(
        ("acme",), {"event": EVENT}, task_id="order-17", countdown=1
    ),
    "a signature in Django's own hook": lambda: transaction.on_commit(send_postback.s("acme", EVENT).delay),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_a_commit_sends_and_a_rollback_sends_nothing(queue, call):
    """Not before the commit, once after it; a savepoint that is rolled back takes its call with it."""
    with transaction.atomic():
        assert call() is None
        assert queue() == []
    assert len(queue()) == 1
    with pytest.raises(Undone):
        undo(call)
    with transaction.atomic(), pytest.raises(Undone):
        undo(call)
    assert len(queue()) == 1


def test_the_id_of_the_call_is_the_postbacks_and_outside_a_transaction_it_is_sent_at_once(queue):
    assert send_postback.apply_async_on_commit(("acme", EVENT), task_id="order-17") is None
    assert queue() == ["order-17"]


def test_a_signature_has_neither_call():
    """As docs/sending.md says; a release of Celery that adds them shows it here."""
    names = ("delay_on_commit", "apply_async_on_commit")
    assert not any(hasattr(send_postback.s("acme", EVENT), name) for name in names)


def test_using_names_the_database_whose_commit_is_waited_for(queue):
    with transaction.atomic(using="archive"):
        with transaction.atomic():
            send_postback.delay_on_commit("acme", EVENT, using="archive")
        assert queue() == []
    assert len(queue()) == 1
    with pytest.raises(ConnectionDoesNotExist, match="elsewhere"):
        send_postback.delay_on_commit("acme", EVENT, using="elsewhere")


def test_the_event_is_the_one_of_the_call_whatever_becomes_of_the_mapping(queue, broker):
    """A mapping that is filled anew before the commit sends what was checked."""
    event = dict(MO)
    with transaction.atomic():
        send_postback.delay_on_commit("acme", event)
        event.clear()
    with broker.client() as client:
        assert "SMS_MO" in json.loads(client.lindex(keys.QUEUE, 0))["headers"]["argsrepr"]


def test_a_call_within_a_capture_is_the_captures_however_late_the_commit_comes(queue):
    """As where a test opens the capture inside the transaction; another one that is open then is the inner one."""
    with transaction.atomic():
        with captured_postbacks() as sent:
            send_postback.delay_on_commit("acme", EVENT)
        assert sent == []
    assert sent.only(account="acme").code == EVENT["CODE"]
    with captured_postbacks() as inner, transaction.atomic(), captured_postbacks() as ended:
        send_postback.delay_on_commit("acme", EVENT)
    assert (len(inner), len(ended)) == (1, 0)
    assert queue() == []


BAD = {
    "an event": (("acme", EVENT | {"MOBILE": "+1"}), {}, InvalidEvent, "MOBILE: must be"),
    "an account": (("a b", EVENT), {}, InvalidAccount, "is no account name"),
    "a URL": (("acme", EVENT), {"url": "nowhere"}, InvalidUrl, "no absolute http"),
    "no event": (("acme",), {}, UnsupportedOption, "wants event as well"),
    "an option": (
        ("acme", EVENT),
        {"countdown": 3},
        UnsupportedOption,
        "countdown= is an option: .*_on_commit",
    ),
    "a misspelt database": (("acme", EVENT), {"usng": "archive"}, UnsupportedOption, "Did you mean using="),
}


@pytest.mark.parametrize(("args", "kwargs", "error", "words"), BAD.values(), ids=list(BAD))
def test_a_bad_call_raises_where_it_stands_so_that_the_transaction_rolls_back(
    queue, args, kwargs, error, words
):
    """Not out of the commit, when the row that the event is about is there already."""
    with transaction.atomic():
        with pytest.raises(error, match=words):
            send_postback.delay_on_commit(*args, **kwargs)
        assert connections["default"].run_on_commit == []
    with pytest.raises(UnsupportedOption, match="expires"), transaction.atomic():
        send_postback.apply_async_on_commit(("acme", EVENT), expires=5)
    with pytest.raises(UnsupportedOption, match="Did you mean using="), transaction.atomic():
        send_postback.apply_async_on_commit(("acme", EVENT), usng="archive")
    assert queue() == []


def test_a_broker_that_is_gone_is_told_by_the_commit_which_has_happened(queue):
    """Django calls a hook after its commit, and what that raises comes out of the block."""
    with connections["default"].cursor() as cursor:
        cursor.execute("create table if not exists orders (number integer)")
        cursor.execute("delete from orders")

        @transaction.atomic
        def place_order():
            cursor.execute("insert into orders values (17)")
            send_postback.delay_on_commit("acme", EVENT)

        nowhere = f"redis://127.0.0.1:{refusing_port()}/0"
        with environment(POSTBACKS_BROKER_URL=nowhere), pytest.raises(BrokerUnreachable):
            place_order()
        cursor.execute("select number from orders")
        assert cursor.fetchall() == [(17,)]


def test_in_a_transaction_that_django_does_not_manage_its_own_error_comes(queue):
    """With autocommit off nobody but the caller knows of the commit."""
    transaction.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError):
            send_postback.delay_on_commit("acme", EVENT)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert queue() == []


#: A program that has no Django, then one without settings, then one without a database.
OUTSIDE = """
import sys
from postbacks import send_postback

def call():
    try:
        send_postback.delay_on_commit("acme", {event})
    except Exception as error:
        print(type(error).__name__, error)

assert "django.db" not in sys.modules  # kombu itself imports django.utils
sys.modules["django.core"] = None
call()
del sys.modules["django.core"]
call()
from django.conf import settings
settings.configure()
call()
"""


def test_outside_django_a_sentence_says_what_to_call_instead():
    """Nothing of Django's database is imported before the call."""
    program = OUTSIDE.replace("{event}", str(EVENT))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    reasons = ("is not installed", "has no database set up here", "has no database set up here")
    assert done.stdout.splitlines() == [
        f"UnsupportedOption send_postback.delay_on_commit() waits for a commit of Django, which {reason}. Elsewhere call "
        "delay() once your transaction has committed: docs/sending.md, After the commit."
        for reason in reasons
    ]
