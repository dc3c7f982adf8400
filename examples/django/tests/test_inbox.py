"""The hook and the sweep. What is sent is captured, but for the last test: that one has a real broker and worker."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks
from standardwebhooks import Webhook

from inbox.account_store import CustomerAccounts
from inbox.management.commands import send_owed_postbacks
from inbox.models import Customer, IncomingMessage, OwedPostback
from postbacks import BrokerUnreachable, InvalidAccount, SmsReceived
from postbacks.testing import EmbeddedStack, Outbox, Receiver, captured_postbacks, fail_first

SECRET = "whsec_bm90IHRvIGJlIHVzZWQgYW55d2hlcmUgZWxzZQ=="
SMS = {
    "id": "c-17",
    "sender": "15552312102",
    "short_code": "86717",
    "text": "STOP ✋",
    "received_at": "2026-11-05T05:41:08-05:00",
}
STOP = SmsReceived(from_="15552312102", to="86717", text="STOP", received=datetime(2026, 11, 5, tzinfo=UTC))


@pytest.fixture(autouse=True)
def customer(db: None) -> Customer:
    return Customer.objects.create(
        name="acme", short_code="86717", postback_url="https://acme.example/postbacks"
    )


def test_a_message_is_stored_and_its_postback_sent_after_the_commit(
    client: Client,
    postbacks_outbox: Outbox,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        assert client.post("/carrier/sms", SMS).status_code == 200
        assert postbacks_outbox == []

    owed = OwedPostback.objects.get()
    assert owed.sent_at is not None
    postback = postbacks_outbox.only(account="acme", code="N211")
    assert postback.id == str(owed.id)
    assert postback.tags == {
        "ORIGIN": "SMS_MO",
        "CODE": "N211",
        "FROM": "15552312102",
        "TO": "86717",
        "TEXT": "STOP ✋",
        "RECEIVED": SMS["received_at"],
        "TRANSACTIONID": "c-17",
    }


def test_a_message_that_the_carrier_repeats_is_one(
    client: Client,
    postbacks_outbox: Outbox,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            assert client.post("/carrier/sms", SMS).status_code == 200

    assert IncomingMessage.objects.count() == len(postbacks_outbox) == 1


def test_a_message_that_no_postback_may_have_is_refused_and_not_stored(
    client: Client, postbacks_outbox: Outbox
) -> None:
    response = client.post("/carrier/sms", SMS | {"sender": "+15552312102"})

    assert response.status_code == 422
    assert list(response.json()["errors"]) == ["FROM"]
    assert not IncomingMessage.objects.exists()
    assert not OwedPostback.objects.exists()
    assert postbacks_outbox == []


def test_the_carrier_hears_200_without_a_broker_and_the_sweep_sends_the_postback(
    client: Client, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with (
        captured_postbacks(raising=BrokerUnreachable("The broker does not answer.")),
        django_capture_on_commit_callbacks(execute=True),
    ):
        assert client.post("/carrier/sms", SMS).status_code == 200
    with captured_postbacks() as sent:
        call_command("send_owed_postbacks", older_s=0)
        call_command("send_owed_postbacks", older_s=0)

    assert [postback.id for postback in sent] == [str(OwedPostback.objects.get().id)]


def test_the_sweep_leaves_a_young_postback_to_its_request(client: Client, postbacks_outbox: Outbox) -> None:
    client.post("/carrier/sms", SMS)  # the test's transaction is never committed

    call_command("send_owed_postbacks")

    assert postbacks_outbox == []


def test_a_crash_between_the_call_and_the_mark_makes_no_second_postback(
    client: Client,
    postbacks_outbox: Outbox,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        client.post("/carrier/sms", SMS)
    OwedPostback.objects.update(sent_at=None)

    call_command("send_owed_postbacks", older_s=0)

    assert len(postbacks_outbox) == 1
    assert OwedPostback.objects.get().sent_at is not None


def test_a_postback_that_cannot_be_sent_is_set_aside_and_does_not_keep_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, postbacks_outbox: Outbox
) -> None:
    monkeypatch.setattr(send_owed_postbacks, "BATCH", 1)
    bad = OwedPostback.objects.create(account="acme", event={"ORIGIN": "SUB", "CODE": "N999"})
    good = OwedPostback.objects.create(account="acme", event=STOP.to_mapping())

    with pytest.raises(CommandError, match="1 cannot be sent"):
        call_command("send_owed_postbacks", older_s=0)
    assert postbacks_outbox == []
    assert "N999" in capsys.readouterr().err
    call_command("send_owed_postbacks", older_s=0)

    assert postbacks_outbox.only().id == str(good.id)
    assert capsys.readouterr().err == ""
    bad.refresh_from_db()
    assert "N999" in bad.refused


def test_a_customer_whose_name_no_account_may_have_is_told_at_the_call() -> None:
    with pytest.raises(InvalidAccount):
        OwedPostback.owe("no name", STOP)

    assert not OwedPostback.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_sweep_that_loses_the_broker_keeps_the_marks_of_what_it_sent(
    monkeypatch: pytest.MonkeyPatch, postbacks_outbox: Outbox
) -> None:
    for _ in range(2):
        OwedPostback.objects.create(account="acme", event=STOP.to_mapping())
    send = OwedPostback.send

    def lose_the_broker_after_one(owed: OwedPostback) -> None:
        if postbacks_outbox:
            raise BrokerUnreachable("It does not answer.")
        send(owed)

    monkeypatch.setattr(OwedPostback, "send", lose_the_broker_after_one)
    with pytest.raises(CommandError, match="1 sent, then the sweep ended: It does not answer"):
        call_command("send_owed_postbacks", older_s=0)

    assert OwedPostback.objects.filter(sent_at=None).count() == 1


def test_the_sweep_tells_that_the_broker_is_away(client: Client) -> None:
    client.post("/carrier/sms", SMS)

    with (
        captured_postbacks(raising=BrokerUnreachable("It does not answer.")),
        pytest.raises(CommandError, match="0 sent"),
    ):
        call_command("send_owed_postbacks", older_s=0)


def test_the_migrations_are_those_of_the_models() -> None:
    call_command("makemigrations", "--check", "--dry-run")


def test_the_workers_read_a_customer_as_an_account() -> None:
    Customer.objects.create(name="beta", short_code="86718", postback_url="https://beta.example/")

    accounts = CustomerAccounts().get_many(["acme", "nobody"])

    assert {name: account.url for name, account in accounts.items()} == {
        "acme": "https://acme.example/postbacks"
    }


@pytest.mark.django_db(transaction=True)  # the worker reads what is committed
def test_the_whole_way_to_the_server_that_the_customers_row_names(
    client: Client, postbacks_stack: EmbeddedStack, postback_receiver: Receiver
) -> None:
    postback_receiver.answer = fail_first(1)
    Customer.objects.filter(name="acme").update(
        postback_url=postback_receiver.url("/postbacks"), signing_secret=SECRET
    )

    client.post("/carrier/sms", SMS)

    first, second = postback_receiver.wait_for(2, timeout_s=30)
    assert second.path == "/postbacks"
    assert second.tags["TEXT"] == SMS["text"]
    assert first.body == second.body
    assert second.postback_id == str(OwedPostback.objects.get().id)
    Webhook(SECRET).verify(second.body, second.headers, json_parse=False)
