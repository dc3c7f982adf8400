"""The hook. What is sent is captured, but for the last test: that one has a real broker and worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from postbacks import BrokerUnreachable
from postbacks.testing import EmbeddedStack, Outbox, Receiver, captured_postbacks
from receipts import create_app


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = create_app(f"sqlite:///{tmp_path}/receipts.db")
    yield app
    app.extensions["engine"].dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def receipt(app: Flask) -> dict[str, str]:
    """Receipt of a message that was sent for acme."""
    added = app.test_cli_runner().invoke(args=["add-message", "acme", "15552312102"])
    return {
        "tracking_id": added.output.strip(),
        "status": "delivered",
        "timestamp": "2026-11-05T05:41:08-05:00",
    }


def test_programs_that_start_together_on_an_empty_database_do_not_disturb_each_other(tmp_path: Path) -> None:
    for number in range(10):
        together = threading.Barrier(4)

        def start(url: str, together: threading.Barrier) -> None:
            together.wait()
            create_app(url).extensions["engine"].dispose()

        with ThreadPoolExecutor(4) as pool:
            started = [pool.submit(start, f"sqlite:///{tmp_path}/{number}.db", together) for _ in range(4)]
        assert [each.exception() for each in started] == [None] * 4


def test_a_receipt_is_stored_and_its_postback_sent_once(
    client: FlaskClient, receipt: dict[str, str], postbacks_outbox: Outbox
) -> None:
    for _ in range(2):
        answer = client.post("/carrier/receipts", json=receipt)
        assert (answer.status_code, answer.json) == (
            200,
            {"postback_id": f"receipt-{receipt['tracking_id']}"},
        )

    postback = postbacks_outbox.only(account="acme", origin="SMS_MT", code="N202")
    assert postback.id == f"receipt-{receipt['tracking_id']}"
    assert postback.tags["TRACKINGID"] == receipt["tracking_id"]
    assert postback.tags["TIMESTAMP"] == "2026-11-05T05:41:08-05:00"


def test_a_message_that_was_not_delivered_has_its_reason(
    client: FlaskClient, receipt: dict[str, str], postbacks_outbox: Outbox
) -> None:
    client.post("/carrier/receipts", json=receipt | {"status": "absent subscriber"})

    assert postbacks_outbox.only(code="E202").tags["STATUSDETAILS"] == "absent subscriber"


def test_the_first_receipt_of_a_message_counts(
    client: FlaskClient, receipt: dict[str, str], postbacks_outbox: Outbox
) -> None:
    client.post("/carrier/receipts", json=receipt)
    answer = client.post("/carrier/receipts", json=receipt | {"status": "expired"})

    assert answer.status_code == 200
    assert [postback.code for postback in postbacks_outbox] == ["N202"]


def test_a_receipt_of_no_message_is_refused(client: FlaskClient, postbacks_outbox: Outbox) -> None:
    answer = client.post(
        "/carrier/receipts",
        json={"tracking_id": "T-1", "status": "delivered", "timestamp": "2026-11-05T05:41:08Z"},
    )
    assert answer.status_code == 404
    assert postbacks_outbox == []


@pytest.mark.parametrize("body", [{"tracking_id": "T-1"}, ["T-1"]])
def test_a_request_that_is_no_receipt_is_refused(client: FlaskClient, body: object) -> None:
    assert client.post("/carrier/receipts", json=body).status_code == 400


def test_a_receipt_that_no_postback_may_have_is_refused_and_not_stored(
    client: FlaskClient, receipt: dict[str, str], postbacks_outbox: Outbox
) -> None:
    answer = client.post("/carrier/receipts", json=receipt | {"timestamp": "yesterday"})
    assert answer.status_code == 422
    assert "TIMESTAMP" in answer.text

    client.post("/carrier/receipts", json=receipt)
    assert postbacks_outbox.only().tags["TIMESTAMP"] == receipt["timestamp"]


def test_the_carrier_is_asked_to_repeat_while_the_broker_is_away(
    client: FlaskClient, receipt: dict[str, str]
) -> None:
    with captured_postbacks(raising=BrokerUnreachable("The broker does not answer.")):
        answer = client.post("/carrier/receipts", json=receipt)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")

    with captured_postbacks() as sent:
        answer = client.post("/carrier/receipts", json=receipt)
    assert answer.status_code == 200
    assert sent.only().id == f"receipt-{receipt['tracking_id']}"


def test_the_whole_way_to_the_customers_server(
    client: FlaskClient, receipt: dict[str, str], postbacks_stack: EmbeddedStack, postback_receiver: Receiver
) -> None:
    postbacks_stack.set_account("acme", url=postback_receiver.url())

    answer = client.post("/carrier/receipts", json=receipt)

    (post,) = postback_receiver.wait_for(1, timeout_s=30)
    assert answer.json == {"postback_id": post.postback_id}
    assert (post.tags["CODE"], post.tags["TRACKINGID"]) == ("N202", receipt["tracking_id"])
