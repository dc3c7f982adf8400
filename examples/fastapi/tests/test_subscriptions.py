"""The API. What is sent is captured, but for the last test: that one has a real broker and worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from postbacks import BrokerUnreachable
from postbacks.testing import EmbeddedStack, Outbox, Receiver, captured_postbacks
from subscriptions.app import create_app

SUBSCRIBER = "/accounts/acme/campaigns/42/subscribers/15552312102"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(f"sqlite+aiosqlite:///{tmp_path}/subscriptions.db")) as client:
        yield client


def test_whoever_subscribes_is_stored_and_told_once(client: TestClient, postbacks_outbox: Outbox) -> None:
    first = client.put(SUBSCRIBER)
    second = client.put(SUBSCRIBER)

    assert first.status_code == second.status_code == 200
    postback = postbacks_outbox.only(account="acme", code="N301")
    assert first.json() == second.json() == {"postback_id": postback.id}
    assert postback.tags["MOBILE"] == "15552312102"
    assert postback.tags["CAMPAIGNID"] == "42"


def test_a_number_that_no_postback_may_have_is_refused_and_not_stored(
    client: TestClient, postbacks_outbox: Outbox
) -> None:
    for _ in range(2):
        answer = client.put("/accounts/acme/campaigns/42/subscribers/+1555")

        assert answer.status_code == 422
        assert [problem["tag"] for problem in answer.json()["detail"]] == ["MOBILE"]
    assert postbacks_outbox == []


def test_a_call_without_a_broker_is_answered_with_503_and_its_repetition_sends_the_same_postback(
    client: TestClient,
) -> None:
    with captured_postbacks(raising=BrokerUnreachable("The broker does not answer.")):
        answer = client.put(SUBSCRIBER)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")

    with captured_postbacks() as sent:
        answers = [client.put(SUBSCRIBER).json() for _ in range(2)]

    assert [{"postback_id": postback.id} for postback in sent] == answers[:1]
    assert answers[0] == answers[1]


def test_the_whole_way_to_the_customers_server(
    client: TestClient, postbacks_stack: EmbeddedStack, postback_receiver: Receiver
) -> None:
    postbacks_stack.set_account("acme", url=postback_receiver.url())

    answer = client.put(SUBSCRIBER)

    (post,) = postback_receiver.wait_for(1, timeout_s=30)
    assert post.postback_id == answer.json()["postback_id"]
    assert (post.tags["CODE"], post.tags["MOBILE"]) == ("N301", "15552312102")
