"""The API, without a broker: what is sent is captured."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient
from postbacks.testing import Outbox, captured_postbacks

from postbacks import BrokerUnreachable
from subscriptions.app import create_app

SUBSCRIBER = "/accounts/acme/campaigns/42/subscribers/15552312102"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/subscriptions.db"


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    with TestClient(create_app(database_url)) as client:
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


def test_a_broker_that_hangs_does_not_hang_the_event_loop(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # takes connections, and never answers
        hanging.settimeout(30)
        monkeypatch.setenv("POSTBACKS_BROKER_URL", f"redis://127.0.0.1:{hanging.getsockname()[1]}/0")
        monkeypatch.setenv("POSTBACKS_BROKER_TIMEOUT_S", "1")

        async def subscribe() -> tuple[httpx2.Response, bool]:
            app = create_app(database_url)
            transport = httpx2.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx2.AsyncClient(transport=transport, base_url="http://api.example") as client,
            ):
                waiting = asyncio.create_task(client.put(SUBSCRIBER))
                await asyncio.to_thread(hanging.accept)
                health = await client.get("/health")
                is_waiting = not waiting.done()
                assert health.status_code == 200
                return await waiting, is_waiting

        answer, was_waiting = asyncio.run(subscribe())

    assert was_waiting
    assert answer.status_code == 503
