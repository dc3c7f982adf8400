"""The whole way with real processes: from the call to the receiver, in both pools."""

from __future__ import annotations

import time

import pytest
from celery import Celery
from events import EVENT, examples
from helpers import ended, eventually, running, set_account, short_and_long

from postbacks import send_postback, send_postbacks
from postbacks.app import app
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.devtools.receiver import Answer, Receiver, dead_port
from postbacks.ledger.ledger import Ledger


@pytest.mark.parametrize("pool", short_and_long("threads", "prefork"))
def test_a_thousand_postbacks_of_every_code_arrive_exactly_once_with_the_rendered_bytes(
    broker, tmp_path, pool
):
    """Through .delay(), send_postbacks and a foreign Celery client's send_task alike."""
    rows = list(examples().values())
    foreign = Celery("foreign", broker=broker.url, set_as_current=False)
    foreign.conf.task_default_queue = "somewhere-else"
    expected: dict[str, bytes] = {}
    with Receiver() as receiver, running(broker, tmp_path, pool=pool):
        for name in ("a", "b", "c", "d"):
            set_account(name, url=receiver.url(f"/{name}"))
        for number in range(200):
            event = rows[number % len(rows)]
            expected[send_postback.delay("a", parse_event(event)).id] = render(parse_event(event))
        for name in ("b", "c"):
            events = [rows[number % len(rows)] for number in range(300)]
            ids = send_postbacks(name, events)
            expected |= {one: render(parse_event(event)) for one, event in zip(ids, events, strict=True)}
        for number in range(200):
            event = rows[number % len(rows)]
            sent = foreign.send_task("postbacks.send_postback", args=["d", event], queue="postbacks")
            expected[sent.id] = render(parse_event(event))
        assert len(expected) == 1000
        receiver.wait_for(1000, 120)
        for one in expected:
            ended(broker.client(), one)
        got = receiver.by_id()
    foreign.close()
    assert set(got) == set(expected)
    assert [one for one, posts in got.items() if len(posts) != 1] == []
    assert {one: posts[0].body for one, posts in got.items()} == expected


def test_each_group_goes_to_its_url_and_an_origin_that_is_off_is_skipped(broker, tmp_path):
    """The MO URL gets MO, the Pass URL passes, the Postback URL the rest; what is off is not sent."""
    rows = examples()
    with Receiver() as receiver, running(broker, tmp_path):
        set_account(
            "acme",
            url=receiver.url("/all"),
            mo_url=receiver.url("/mo"),
            pass_url=receiver.url("/pass"),
            off={"MMS_MT"},
        )
        ids = {row: send_postback.delay("acme", rows[row]).id for row in rows}
        records = {row: ended(broker.client(), one) for row, one in ids.items()}
        unknown = ended(broker.client(), send_postback.delay("nobody", rows["SUB", "N301"]).id)
        paths = {post.postback_id: post.path for post in receiver.received}
    wanted = {
        "SUB": "/all",
        "EMAIL_SUB": "/all",
        "SMS_MT": "/all",
        "SMS_MO": "/mo",
        "MMS_MO": "/mo",
        "GENERATE_PASS": "/pass",
    }
    for (origin, code), record in records.items():
        if origin == "MMS_MT":
            assert (record.state, record.reason) == ("skipped", "origin_off"), code
        else:
            assert paths[record.id] == wanted[origin], (origin, code)
    assert (unknown.state, unknown.reason) == ("dead", "unknown_account")
    assert len(paths) == sum(origin != "MMS_MT" for origin, _ in rows)


def test_the_request_is_what_the_promise_says(broker, tmp_path):
    """Headers, basic auth from the URL, rising sequence, the XML alone as body; no cookie comes back."""
    with (
        Receiver(lambda _: Answer(200, headers={"Set-Cookie": "a=b"})) as receiver,
        running(broker, tmp_path),
    ):
        url = receiver.url("/in?token=1").replace("http://", "http://user:p%40ss@")
        set_account("acme", url=url)
        results = [send_postback.delay("acme", EVENT) for _ in range(2)]
        receiver.wait_for(2, 90)
        records = [ended(broker.client(), result.id) for result in results]
        first, second = sorted(receiver.received, key=lambda post: post.sequence)
    headers = dict(first.headers)
    assert headers.pop("host") == f"127.0.0.1:{receiver.port}"
    assert headers.pop("user-agent").startswith("postbacks/")
    assert headers == {
        "accept": "*/*",
        "authorization": "Basic dXNlcjpwQHNz",
        "content-type": "application/xml; charset=utf-8",
        "content-length": str(len(render(parse_event(EVENT)))),
        "postback-id": results[0].id,
        "postback-attempt": "1",
        "postback-created": records[0].to_public_dict()["created"],
        "postback-sequence": str(records[0].created_ms),
    }
    assert (first.method, first.path) == ("POST", "/in?token=1")
    assert second.sequence > first.sequence
    assert "cookie" not in second.headers
    assert "p%40ss" not in str(records[0].to_public_dict())


def test_the_environments_proxy_is_not_used(broker, tmp_path):
    """No proxy is taken from the environment."""
    with dead_port() as port, Receiver() as receiver:
        env = {"http_proxy": f"http://127.0.0.1:{port}", "ALL_PROXY": f"http://127.0.0.1:{port}"}
        with running(broker, tmp_path, env=env):
            set_account("acme", url=receiver.url())
            assert ended(broker.client(), send_postback.delay("acme", EVENT).id).state == "delivered"


def test_a_countdown_of_the_caller_parks_the_first_send(broker, tmp_path):
    """countdown= holds the postback in Redis, not in a worker's memory."""
    with Receiver() as receiver, running(broker, tmp_path):
        set_account("acme", url=receiver.url())
        began_s = time.time()
        result = send_postback.apply_async(("acme", EVENT), countdown=3)
        eventually(lambda: getattr(Ledger(broker.client()).find(result.id), "state", "") == "parked")
        assert result.state == "PENDING"
        eventually(lambda: broker.client().hlen("unacked") == 0, what="an acknowledged message")
        assert result.get(timeout=60)["attempts"] == 1
        assert receiver.received[0].at - began_s >= 2.9


def test_a_worker_that_is_given_the_queue_itself_sends_through_the_same_code(broker, tmp_path):
    """-Q postbacks by mistake: the postback is accepted, kept and delivered all the same."""
    from helpers import BASE_ENV

    from postbacks.devtools.stack import CeleryProcess

    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        with CeleryProcess(
            "worker",
            env={**BASE_ENV, "POSTBACKS_BROKER_URL": broker.url},
            args=["-Q", "postbacks", "--loglevel", "INFO"],
            log_path=tmp_path / "worker.log",
        ):
            result = send_postback.delay("acme", EVENT)
            assert ended(broker.client(), result.id).state == "delivered"
        assert [post.body for post in receiver.received] == [render(parse_event(EVENT))]


def test_eager_mode_makes_one_post_and_no_resend(broker):
    """task_always_eager: the POST is made in the caller, failures are told at once."""
    app.conf.task_always_eager = True
    try:
        with Receiver(lambda post: Answer(500 if post.path == "/bad" else 200)) as receiver:
            set_account("acme", url=receiver.url("/good"))
            assert send_postback.delay("acme", EVENT).get()["outcome"] == "delivered"
            failed = send_postback.delay("acme", EVENT, url=receiver.url("/bad"))
            assert failed.state == "FAILURE"
            assert len(receiver.received) == 2
    finally:
        app.conf.task_always_eager = False
