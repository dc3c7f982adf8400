"""An id stands for one account's one event: anything else under it is never silent."""

from __future__ import annotations

import logging
from array import array

import pytest
from celery.result import ResultSet
from click.testing import CliRunner
from events import MO
from helpers import Rig, check_places, environment, set_account

from postbacks import IdTaken, PostbackDead, keys, resend, send_postback
from postbacks.app import app
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.cli import main
from postbacks.client.producer import RedisProducer
from postbacks.devtools.receiver import Receiver
from postbacks.flower_events import events
from postbacks.flower_events.sampling import METER_NUMBERS, Sampler
from postbacks.ledger import states
from postbacks.ledger.digest import digest_of, fresh_id
from postbacks.ledger.ledger import Ledger
from postbacks.queue.actions import cancel
from postbacks.queue.rows import AcceptRow
from postbacks.settings import load

ID = "order-18"
HELP = MO | {"TEXT": "HELP"}


@pytest.fixture
def receiver() -> Receiver:
    with Receiver() as made:
        for account in ("acme", "globex"):
            set_account(account, url=made.url(f"/{account}"))
        yield made


def send(account: str, event: dict[str, str], url: str | None = None, postback_id: str = ID) -> None:
    """Send as a client that knows no ledger: what the caller could be told is found at take-in."""
    send_postback.send_with_celery(
        (account, event), {"url": url} if url else {}, task_id=postback_id, producer=RedisProducer()
    )


def way_of(rig: Rig) -> None:
    rig.tick()
    rig.deliver()


OTHERS = {
    "another account's": ("globex", MO, None),
    "another event of the account": ("acme", HELP, None),
    "the same event to a URL of its own": ("acme", MO, "/elsewhere"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("together", [True, False], ids=["in one tick", "in another tick"])
def test_another_postback_under_an_id_that_is_taken_is_dead_under_a_fresh_one(
    rig, receiver, caplog, other, together
):
    account, event, path = OTHERS[other]
    url = path and receiver.url(path)
    send("acme", MO)
    if not together:
        way_of(rig)
    send(account, event, url)
    with caplog.at_level(logging.ERROR):
        way_of(rig)
    ledger = Ledger(rig.client)
    first, (kept,) = ledger.get(ID), ledger.ended(dead=True, at_most=10)
    assert (first.account, first.state) == ("acme", states.DELIVERED)
    assert (kept.account, kept.code, kept.state, kept.reason) == (account, "N211", states.DEAD, "id_taken")
    assert kept.first_id == ID
    assert [request.path for request in receiver.received] == ["/acme"]
    assert f"taken_id={ID}" in caplog.text
    assert f"account={account}" in caplog.text
    assert rig.client.hget(keys.TOTALS, "id_taken") == b"1"


def test_the_same_postback_sent_again_is_one(rig, receiver):
    for number in ("7", "7", 7):  # an int is its digits
        send("acme", MO | {"TRANSACTIONID": number})
        way_of(rig)
    assert len(receiver.received) == 1
    assert not rig.client.zcard(keys.DEAD)
    assert not rig.client.hexists(keys.TOTALS, "id_taken")


def test_what_is_kept_apart_is_kept_once_however_often_it_comes(rig, receiver):
    send("acme", MO)
    for _ in range(3):
        send("globex", MO)
        way_of(rig)
    assert rig.client.zcard(keys.DEAD) == 1
    assert rig.client.hget(keys.TOTALS, "id_taken") == b"1"


def test_what_is_kept_apart_can_be_sent_again(rig, receiver):
    send("acme", MO)
    send("globex", MO)
    way_of(rig)
    assert resend(fresh_id(ID, digest_of("globex", render(parse_event(MO)), None))) == states.WAITING
    rig.deliver()
    assert [request.path for request in receiver.received] == ["/acme", "/globex"]


@pytest.mark.parametrize(
    ("account", "event", "dead"),
    [("acme", MO, 0), ("acme", HELP, 1), ("globex", MO, 1)],
    ids=["the same", "another event", "another account's"],
)
def test_a_record_of_the_version_before_is_compared_by_its_document(rig, receiver, account, event, dead):
    send("acme", MO)
    way_of(rig)
    rig.client.hdel(keys.record(ID), "digest")
    bytes_before = int(rig.client.get(keys.LEDGER_BYTES))
    send(account, event)
    way_of(rig)
    assert rig.client.zcard(keys.DEAD) == dead
    assert int(rig.client.hget(keys.TOTALS, "id_taken")) == dead
    assert (int(rig.client.get(keys.LEDGER_BYTES)) == bytes_before) == (not dead)
    assert len(receiver.received) == 1


def test_a_message_that_is_no_postback_is_kept_though_its_id_is_taken(rig, receiver):
    send("acme", MO)
    send("acme", {"ORIGIN": "SMS_MO", "CODE": "N999"})
    way_of(rig)
    (kept,) = Ledger(rig.client).ended(dead=True, at_most=10)
    assert kept.first_id == ID
    assert "N999" in kept.reason or "CODE" in kept.reason
    assert kept.raw


# -- in the caller -----------------------------------------------------------------------------------


@pytest.mark.parametrize("other", OTHERS)
def test_a_caller_is_told_at_once_where_the_id_is_known_to_be_taken(rig, receiver, other):
    account, event, path = OTHERS[other]
    url = {"url": receiver.url(path)} if path else {}
    send_postback.apply_async(("acme", MO), task_id=ID)
    way_of(rig)
    with pytest.raises(IdTaken, match=f"The id {ID} is taken by .*postback of account acme"):
        send_postback.apply_async((account, event), url, task_id=ID)
    assert not rig.client.exists(keys.QUEUE)
    send_postback.apply_async(("acme", MO), task_id=ID)  # the same is one, as ever
    way_of(rig)
    assert len(receiver.received) == 1


def test_a_caller_that_may_not_read_records_is_judged_at_take_in(rig, receiver):
    send_postback.apply_async(("acme", MO), task_id=ID)
    way_of(rig)
    rig.client.execute_command(
        *[
            "ACL",
            "SETUSER",
            "sender",
            "reset",
            "on",
            ">pw",
            "%W~postbacks",
            "+client|setinfo",
            "+info",
            "+lpush",
        ]
    )
    with environment(POSTBACKS_BROKER_URL=load().broker_url.replace("redis://", "redis://sender:pw@")):
        send_postback.apply_async(("globex", MO), task_id=ID)
    way_of(rig)
    (kept,) = Ledger(rig.client).ended(dead=True, at_most=10)
    assert (kept.account, kept.reason) == ("globex", "id_taken")
    rig.client.execute_command("ACL", "DELUSER", "sender")


def test_a_result_made_by_a_call_knows_its_account(rig, receiver):
    """Both were sent before either was taken in: the second reads the first one's record as a failure."""
    first = send_postback.apply_async(("acme", MO), task_id=ID)
    second = send_postback.apply_async(("globex", MO), task_id=ID)
    assert {first.state, second.state} == {"PENDING"}
    way_of(rig)
    assert (first.state, first.get(timeout=60)["account"]) == ("SUCCESS", "acme")
    assert second.state == "FAILURE"
    with pytest.raises(
        PostbackDead, match=r"is account acme's, not globex's: the id was taken \(id_taken\)"
    ) as told:
        second.get(timeout=5)
    assert told.value.outcome == "id_taken"
    assert send_postback.AsyncResult(ID).info["account"] == "acme"  # by its id alone it is what it is


def test_a_result_does_not_wait_for_another_accounts_postback(rig, receiver):
    send_postback.apply_async(("acme", MO), task_id=ID)
    second = send_postback.apply_async(("globex", MO), task_id=ID)
    rig.tick()
    with pytest.raises(PostbackDead, match="id_taken"):
        second.get(timeout=60)  # acme's has not been sent yet


# -- revoked before it came --------------------------------------------------------------------------


def test_a_result_revokes_its_own_accounts_postback_alone(rig, receiver):
    """The id is not known yet: another account's message with the same id is sent all the same."""
    revoked = send_postback.apply_async(("acme", MO), task_id=ID)
    rig.client.delete(keys.QUEUE)  # it is not taken in yet, and comes later
    revoked.revoke()
    send_postback.apply_async(("globex", MO), task_id=ID)
    way_of(rig)
    send("acme", MO)
    way_of(rig)
    assert [post.path for post in receiver.received] == ["/globex"]
    (kept,) = Ledger(rig.client).ended(dead=True, at_most=10)
    assert (kept.account, kept.reason) == ("acme", "id_taken")


def test_a_result_revokes_nothing_of_another_accounts_record(rig, receiver):
    send_postback.apply_async(("acme", MO), task_id=ID)
    second = send_postback.apply_async(("globex", MO), task_id=ID)
    rig.tick()
    second.revoke()
    rig.deliver()
    assert [post.path for post in receiver.received] == ["/acme"]


@pytest.mark.parametrize("by", ["control", "command line", "result"])
def test_what_is_revoked_before_it_comes_keeps_its_account_and_code(rig, receiver, by):
    result = send_postback.apply_async(("acme", MO), task_id=ID)
    if by == "control":
        app.control.revoke(ID)
    elif by == "result":
        result.revoke()
    else:
        assert CliRunner().invoke(main, ["cancel", ID]).exit_code == 0
    way_of(rig)
    record = Ledger(rig.client).get(ID)
    assert (record.account, record.code, record.state) == ("acme", "N211", states.CANCELLED)
    assert result.state == "REVOKED"
    assert receiver.received == []
    send("globex", MO)  # the id is acme's now
    way_of(rig)
    assert [dead.account for dead in Ledger(rig.client).ended(dead=True, at_most=10)] == ["globex"]
    assert check_places(rig.client) == {"done": 1, "dead": 1}


@pytest.mark.parametrize("order", [("acme", "globex"), ("globex", "acme")])
def test_two_accounts_revoke_the_same_id_before_either_comes(rig, receiver, order):
    for account in order:
        cancel(ID, account)
    send("acme", MO)
    send("globex", MO)
    way_of(rig)
    assert receiver.received == []
    record = Ledger(rig.client).get(ID)
    assert (record.account, record.state) == ("acme", states.CANCELLED)


def test_a_result_reads_nothing_from_what_another_account_revoked_before_it_came(rig, receiver):
    """The id is only remembered: this account's postback comes, and is delivered."""
    cancel(ID, "acme")
    result = send_postback.apply_async(("globex", MO), task_id=ID)
    assert result.state == "PENDING"
    way_of(rig)
    assert (result.state, result.get(timeout=60)["account"]) == ("SUCCESS", "globex")


def test_what_was_revoked_before_it_came_stays_revoked_though_its_account_is_not_known(rig, receiver):
    """Else whoever sends the account's dead again would send it."""
    cancel(ID)
    send("nobody", MO)
    way_of(rig)
    record = Ledger(rig.client).get(ID)
    assert (record.account, record.state) == ("nobody", states.CANCELLED)
    assert not rig.client.exists(keys.UNROUTED)


def test_an_event_of_an_unknown_account_under_a_taken_id_is_dead_for_its_id(rig, receiver):
    send("acme", MO)
    send("nobody", MO)
    way_of(rig)
    (kept,) = Ledger(rig.client).ended(dead=True, at_most=10)
    assert (kept.account, kept.reason, kept.first_id) == ("nobody", "id_taken", ID)


def test_what_is_taken_back_leaves_nothing_among_those_of_unknown_accounts(rig, receiver):
    """A record of the version before whose account was not known, sent again under its id."""
    send("nobody", MO)
    rig.tick()
    rig.client.hdel(keys.record(ID), "digest")
    before = [rig.client.get(keys.UNROUTED_BYTES), rig.client.zcard(keys.UNROUTED)]
    send("nobody", MO)
    rig.tick()
    assert [rig.client.get(keys.UNROUTED_BYTES), rig.client.zcard(keys.UNROUTED)] == before
    assert rig.client.hget(keys.TOTALS, "unrouted") == b"1"


@pytest.mark.parametrize("native", [True, False])
def test_a_group_of_results_reads_another_accounts_record_as_a_failure(rig, receiver, native):
    first = send_postback.apply_async(("acme", MO), task_id=ID)
    second = send_postback.apply_async(("globex", MO), task_id=ID)
    way_of(rig)
    assert first.get(timeout=60)["account"] == "acme"
    results = ResultSet([second], app=app)
    with pytest.raises(PostbackDead, match="id_taken"):
        results.join_native(timeout=60) if native else results.join(timeout=60)


def test_a_watcher_is_told_once_of_what_was_revoked_before_it_came_though_it_would_be_dead():
    row = AcceptRow(
        "one", "nobody", "mo", "SMS_MO", "N211", "", "", b"", "dead", "unknown_account", b"", "", b"", "0"
    )
    sampler = Sampler(memoryview(array("d", [0.0] * METER_NUMBERS * 2)))
    batch = events.accepted(sampler, 0.0, [states.REVOKED], [row])
    assert [message["type"] for message in batch] == ["task-received", "task-revoked"]


def test_the_same_id_sent_again_is_one_postback(rig):
    """task_id is the idempotency key, also long after it was delivered."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        for _ in range(3):
            send_postback.apply_async(("acme", MO), task_id="order-17")
        rig.tick()
        rig.deliver()
        send_postback.apply_async(("acme", MO), task_id="order-17")
        rig.tick()
        rig.deliver()
        assert [post.postback_id for post in receiver.received] == ["order-17"]
