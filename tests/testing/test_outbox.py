"""`captured_postbacks()`: every way to send is checked and recorded, and nothing leaves."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, chain, group
from celery import states as celery_states
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from events import EVENT, MO
from helpers import environment

from postbacks import (
    BrokerUnreachable,
    IdTaken,
    InvalidAccount,
    InvalidEvent,
    InvalidUrl,
    SmsReceived,
    UnsupportedOption,
    send_postback,
    send_postbacks,
)
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.celeryext.capture import current
from postbacks.devtools.receiver import dead_port
from postbacks.testing import captured_postbacks

TYPED = SmsReceived(from_="15552312102", to="86717", text="A & B", received=datetime(2013, 11, 5, tzinfo=UTC))
NAME = "postbacks.send_postback"
app = send_postback.app
s = send_postback.s


@pytest.fixture(autouse=True)
def no_broker(broker):
    """Calls know a broker that is not there; the one that Celery's configuration names gets nothing either."""
    with dead_port() as port, environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{port}/0"):
        yield
    with broker.client() as client:
        assert client.dbsize() == 0


@pytest.fixture
def eager(monkeypatch):
    """Celery's eager mode, in which a call makes its POST here and now."""
    monkeypatch.setitem(app.conf.changes, "task_always_eager", True)


#: name -> the call, and the postbacks it makes
WAYS = {
    "delay": (lambda: send_postback.delay("acme", EVENT), 1),
    "apply_async": (lambda: send_postback.apply_async(("acme", EVENT), priority=3), 1),
    "apply": (lambda: send_postback.apply(("acme", EVENT)), 1),
    "send_postbacks": (lambda: send_postbacks("acme", [EVENT, TYPED]), 2),
    "a signature": (lambda: s("acme", TYPED).apply_async(countdown=0), 1),
    "group": (lambda: group(s("acme", EVENT) for _ in range(3)).apply_async(), 3),
    "chain": (lambda: chain(group(s("acme", EVENT), s("acme", EVENT))).apply_async(), 2),
    "send_task": (lambda: app.send_task(NAME, ("acme", EVENT)), 1),
    "the registry": (lambda: app.tasks[NAME].delay("acme", EVENT), 1),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["queued", "eager"])
@pytest.mark.parametrize(("call", "postbacks"), WAYS.values(), ids=list(WAYS))
def test_each_way_to_send_is_recorded_and_sends_nothing(request, mode, call, postbacks):
    """In eager mode as well, where the call would make a POST."""
    if mode == "eager":
        request.getfixturevalue("eager")
    with captured_postbacks() as sent:
        call()
    assert [postback.account for postback in sent] == ["acme"] * postbacks
    assert len({postback.id for postback in sent}) == postbacks
    assert current() is None


def test_an_eager_chain_of_the_programs_own_app_is_recorded():
    """As Celery runs it in an application's tests: task after task, by `apply`."""
    shop = Celery("shop", set_as_current=False)
    shop.conf.task_always_eager = True

    @shop.task
    def close_order():
        return "closed"

    with captured_postbacks() as sent:
        chain(close_order.si(), s("acme", EVENT)).apply_async()
    assert len(sent) == 1


def test_a_record_has_what_the_call_said():
    """The event as it was given and as tags, the document as it would travel, and when."""
    eta = datetime.now(UTC) + timedelta(hours=1)
    account = uuid.uuid4()
    with captured_postbacks() as sent:
        result = send_postback.apply_async(
            (account, TYPED), {"url": "https://a.example/"}, task_id="order-17", countdown=3, priority=9
        )
        send_postback.apply_async(("acme", MO), eta=eta.isoformat())
    first, second = sent
    assert (first.id, first.account, first.url) == (result.id, str(account), "https://a.example/")
    assert (first.origin, first.code, first.event) == ("SMS_MO", "N211", TYPED)
    assert first.tags == TYPED.to_mapping()
    assert first.document == render(TYPED)
    assert b"<TEXT>A &amp; B</TEXT>" in first.document
    assert (first.countdown, first.eta, first.options) == (3, None, {"priority": 9})
    assert (second.url, second.countdown, second.eta) == (None, None, eta)
    assert second.event == parse_event(MO)


#: the call, its error and its words
BAD_CALLS = [
    (lambda: send_postback.delay("acme", MO | {"TO": "x"}), InvalidEvent, "TO: must be"),
    (lambda: s("acme", MO | {"TO": "x"}), InvalidEvent, "TO: must be"),
    (lambda: send_postbacks("acme", [MO, MO | {"TO": "x"}]), InvalidEvent, "event 2: TO: must be"),
    (lambda: send_postback.delay("a b", MO), InvalidAccount, "no account name"),
    (lambda: send_postback.delay("acme", MO, url="a.example"), InvalidUrl, "no absolute http"),
    (lambda: send_postback.apply_async(("acme", MO), countdwn=3), UnsupportedOption, "mean countdown="),
    (lambda: send_postback.apply_async(("acme", MO), link=s("acme", MO)), UnsupportedOption, "take link="),
    (lambda: send_postback.apply_async(("acme", MO), task_id="a b"), UnsupportedOption, "no spaces"),
    (lambda: send_postback.map([("acme", MO)]), UnsupportedOption, "send_postbacks"),
    (lambda: send_postback("acme", MO), UnsupportedOption, r"write send_postback\.delay"),
    (send_postback.signature(("acme", MO)), UnsupportedOption, r"write send_postback\.delay"),
]


@pytest.mark.parametrize(("call", "error", "words"), BAD_CALLS)
def test_what_the_real_call_refuses_is_refused(call, error, words):
    """With the same error, and without a record; what would make its POST here and now has a sentence of its own."""
    with captured_postbacks() as sent, pytest.raises(error, match=words):
        call()
    assert sent == []


def test_the_same_id_is_the_same_postback():
    """Sent again it is one; another account, event or URL under it is refused as by the ledger."""
    with captured_postbacks() as sent:
        for _ in range(2):
            assert send_postback.apply_async(("acme", TYPED), task_id="order-17").id == "order-17"
        for args, kwargs in [
            (("other", TYPED), {}),
            (("acme", EVENT), {}),
            (("acme", TYPED), {"url": "https://a.example/"}),
        ]:
            with pytest.raises(IdTaken, match=r"order-17 is taken .*account acme, SMS_MO N211"):
                send_postback.apply_async(args, kwargs, task_id="order-17")
        assert len(sent) == 1
        sent.clear()
        send_postback.apply_async(("other", EVENT), task_id="order-17")
        assert len(sent) == 1


def test_a_result_is_pending_and_nobody_waits_for_it():
    """By the call's result, by its id, and of a group; get() says why at once."""
    with captured_postbacks() as sent:
        result = send_postback.delay("acme", EVENT)
        several = group(s("acme", EVENT), s("acme", EVENT)).apply_async()
        by_id = send_postback.AsyncResult(result.id)
        assert by_id.exists()
        assert not send_postback.AsyncResult("another").exists()
        assert app.AsyncResult(result.id).state == celery_states.PENDING
        assert several.completed_count() == 0
        for wait in (several.get, several.join, lambda: list(several.iter_native())):
            with pytest.raises(CeleryTimeoutError, match="is captured"):
                wait()
        assert send_postback.apply_async(("acme", EVENT), ignore_result=True).get() is None
    assert result.id == sent[0].id
    for one in (result, by_id):
        assert (one.state, one.info, one.ready()) == (celery_states.PENDING, None, False)
    for wait in (result.get, by_id.get):
        with pytest.raises(CeleryTimeoutError, match=r"is captured, so it is not sent .*postbacks_stack"):
            wait()


def test_a_revoked_one_is_marked():
    """By its result, by its id, by the app's control and as a group."""
    with captured_postbacks() as sent:
        results = [send_postback.delay("acme", EVENT) for _ in range(3)]
        several = group(s("acme", EVENT), s("acme", EVENT)).apply_async()
        results[0].revoke()
        app.control.revoke([results[1].id])
        several.revoke()
    assert sent.revoked == {postback.id for postback in sent} - {results[2].id}
    assert [result.state for result in results] == ["REVOKED", "REVOKED", "PENDING"]
    with pytest.raises(TaskRevokedError):
        results[0].get()


def test_only_returns_the_one_or_says_what_there_is():
    """By account, ORIGIN and CODE; an account may be a number, as in a call."""
    with captured_postbacks() as sent:
        send_postback.delay(17, TYPED)
        send_postbacks("acme", [EVENT, TYPED])
    assert sent.only(account=17) is sent[0]
    assert sent.only(account="acme", origin="SMS_MO", code="N211") is sent[2]
    with pytest.raises(
        AssertionError, match=rf"^2 postbacks .* code=N211, not 1\..*17 SMS_MO N211 \({sent[0].id}\)"
    ):
        sent.only(code="N211")
    with pytest.raises(AssertionError, match=r"^0 postbacks .* account=other, not 1"):
        sent.only(account="other")
    sent.clear()
    with pytest.raises(AssertionError, match=r"are any, not 1\. All that were captured: none\."):
        sent.only()


def test_an_error_is_raised_by_every_call_that_is_right():
    """So a program's way out is tried without a broker that fails; a wrong call still says what is wrong."""
    with captured_postbacks(raising=BrokerUnreachable("down")) as sent:
        for call in (lambda: send_postback.delay("acme", EVENT), lambda: send_postbacks("acme", [EVENT])):
            with pytest.raises(BrokerUnreachable, match="down"):
                call()
        with pytest.raises(InvalidEvent):
            send_postback.delay("acme", {})
    assert sent == []


def test_of_two_captures_the_inner_one_records():
    """And when it has ended the outer one goes on, whatever ended it."""
    with captured_postbacks() as outer:
        with suppress(ZeroDivisionError), captured_postbacks() as inner:
            send_postback.delay("acme", EVENT)
            raise ZeroDivisionError
        send_postback.delay("other", EVENT)
    assert [postback.account for postback in inner] == ["acme"]
    assert [postback.account for postback in outer] == ["other"]


def test_calls_of_all_threads_are_recorded_and_captures_may_end_in_any_order():
    """A test client runs the program in a thread of its own."""
    with captured_postbacks() as sent:
        threads = [
            threading.Thread(target=lambda: [send_postback.delay("acme", EVENT) for _ in range(20)])
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({postback.id for postback in sent}) == len(sent) == 100

    first, second = captured_postbacks(), captured_postbacks()
    first.__enter__()
    late = second.__enter__()
    first.__exit__(None, None, None)
    send_postback.delay("acme", EVENT)
    second.__exit__(None, None, None)
    assert len(late) == 1
    assert current() is None
