"""Routing by one rule, for the intake, eager mode and a call as a function; one table has its words."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from events import EVENT, MO
from helpers import environment, set_account

from postbacks import (
    InvalidAccount,
    PostbackDead,
    PostbackFailed,
    PostbackSkipped,
    keys,
    send_postback,
    send_postbacks,
)
from postbacks.accounts import routing
from postbacks.cli import main
from postbacks.devtools.receiver import dead_port
from postbacks.errors import BrokerUnreachable

app = send_postback.app


@pytest.fixture
def eager(monkeypatch):
    """Celery's eager mode, as applications switch it on in their tests."""
    monkeypatch.setitem(app.conf.changes, "task_always_eager", True)


#: name -> the account's settings (None: there is none), the event, the path of the call's URL, where it goes or why not
ROUTES = {
    "no account": (None, EVENT, None, "unknown_account"),
    "no account, a URL": (None, EVENT, "/call", "/call"),
    "an account": ({"url": "/all"}, EVENT, None, "/all"),
    "an account, a URL": ({"url": "/all"}, EVENT, "/call", "/call"),
    "a URL of its group": ({"url": "/all", "mo_url": "/mo"}, MO, None, "/mo"),
    "another group's URL alone": ({"mo_url": "/mo"}, EVENT, None, "no_url"),
    "another group's URL alone, a URL": ({"mo_url": "/mo"}, EVENT, "/call", "/call"),
    "off": ({"url": "/all", "off": {"SUB"}}, EVENT, None, "origin_off"),
    "off, a URL": ({"url": "/all", "off": {"SUB"}}, EVENT, "/call", "origin_off"),
    "off without URL, a URL": ({"off": {"SUB"}}, EVENT, "/call", "origin_off"),
    "another origin off, a URL": ({"url": "/all", "off": {"SUB"}}, MO, "/call", "/call"),
    "unreadable": ("no JSON", EVENT, None, "account_unreadable"),
}


@pytest.mark.parametrize(("account", "event", "path", "goes"), ROUTES.values(), ids=list(ROUTES))
def test_the_intake_eager_mode_and_a_call_as_a_function_route_alike(
    rig, receiver, monkeypatch, account, event, path, goes
):
    """All three send to the same URL, or give the same reason; with a URL that came with the call as well."""
    if isinstance(account, str):
        rig.client.hset(keys.ACCOUNTS, "acme", account)
    elif account is not None:
        urls = {name: receiver.url(value) for name, value in account.items() if name.endswith("url")}
        set_account("acme", **(account | urls))
    url = None if path is None else receiver.url(path)
    accepted = send_postback.delay("acme", event, url=url).id
    rig.tick()
    rig.deliver()
    if goes.startswith("/"):
        send_postback("acme", event, url=url)
    else:
        kind, state = (PostbackSkipped, "skipped") if goes == "origin_off" else (PostbackDead, "dead")
        # one that cannot be read waits until it can
        expected = ("waiting", "") if goes == "account_unreadable" else (state, goes)
        assert (rig.record(accepted).state, rig.record(accepted).reason) == expected
        with pytest.raises(kind, match=f"account acme .*{goes}") as direct:
            send_postback("acme", event, url=url)
        assert direct.value.outcome == goes
    monkeypatch.setitem(app.conf.changes, "task_always_eager", True)
    result = send_postback.delay("acme", event, url=url)
    assert result.state == ("SUCCESS" if goes.startswith("/") else "FAILURE")
    assert [post.path for post in receiver.received] == ([goes] * 3 if goes.startswith("/") else [])


def test_an_account_that_cannot_be_read_gets_nothing_unsigned_though_the_call_has_a_url(rig, receiver):
    """In the queue it waits until the account is set anew; here and now it is refused."""
    rig.client.hset(keys.ACCOUNTS, "acme", "no JSON")
    waits = send_postback.delay("acme", EVENT, url=receiver.url("/call")).id
    rig.tick()
    rig.deliver()
    with pytest.raises(InvalidAccount, match="Account acme cannot be read until it is set anew"):
        send_postback("acme", EVENT, url=receiver.url("/call"))
    assert receiver.received == []
    assert rig.record(waits).state == "waiting"


def test_a_call_with_a_url_has_the_accounts_headers(rig, receiver):
    """As a function and in the queue: the account is known, so its POSTs are made as its own are."""
    set_account("acme", url=receiver.url("/its-own"), headers={"X-Team": "messaging"})
    send_postback("acme", EVENT, url=receiver.url("/call"))
    send_postback.delay("acme", EVENT, url=receiver.url("/call"))
    rig.tick()
    rig.deliver()
    assert [(post.path, post.headers["x-team"]) for post in receiver.received] == [("/call", "messaging")] * 2


# -- eager mode ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
def test_eager_calls_with_a_url_need_no_broker(receiver, caplog):
    """delay and send_postbacks POST alike; nothing can be looked up, which is said."""
    with dead_port() as port, environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{port}/0"):
        result = send_postback.delay("acme", EVENT, url=receiver.url("/one"))
        ids = send_postbacks("acme", [EVENT, MO], url=receiver.url("/many"))
        assert result.get()["outcome"] == "delivered"
    assert [post.path for post in receiver.received] == ["/one", "/many", "/many"]
    assert [post.postback_id for post in receiver.received] == [result.id, *ids]
    assert "sent as an unknown account's" in caplog.text


def test_a_call_as_a_function_without_a_broker_raises(receiver):
    """Outside eager mode a broker is there: what its account says is not passed over."""
    with dead_port() as port, environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{port}/0"):
        with pytest.raises(BrokerUnreachable):
            send_postback("acme", EVENT, url=receiver.url())
        assert receiver.received == []


@pytest.mark.usefixtures("eager")
def test_eager_send_postbacks_raises_what_the_ids_would_hide(broker, receiver):
    """All of them are tried; a broker that is not there, an account that is not known and an answer of 500 are told."""
    del broker
    set_account("acme", url=receiver.url("/bad"), mo_url=receiver.url("/good"))
    assert len(send_postbacks("acme", [MO])) == 1
    with pytest.raises(PostbackFailed, match=r"2 of 3 postbacks failed in eager mode; event 1: .*500"):
        send_postbacks("acme", [EVENT, MO, EVENT])
    assert [post.path for post in receiver.received] == ["/good", "/bad", "/good", "/bad"]
    with pytest.raises(PostbackFailed, match=r"1 of 1 .*account nobody was not known"):
        send_postbacks("nobody", [EVENT])
    with (
        dead_port() as port,
        environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{port}/0"),
        pytest.raises(PostbackFailed, match=r"1 of 1 .*does not answer"),
    ):
        send_postbacks("acme", [EVENT])


# -- in words --------------------------------------------------------------------------------------


def said(*args: str, text: str = json.dumps(EVENT)) -> str:
    """Return what the command says beside its output."""
    shown = CliRunner().invoke(main, args, input=text, prog_name="postbacks")
    return shown.stderr


ENDS = {
    "off": ({"url": "https://acme.example/", "off": {"SUB"}}, "has switched off SUB", "skipped", "skipped"),
    "no URL": (
        {"mo_url": "https://acme.example/"}, "has no URL for SUB", "dead until they are sent again", "dead",
    ),
    "unreadable": ("no JSON", "cannot be read until it is set anew", "kept until then", "waiting"),
}  # fmt: skip


@pytest.mark.parametrize(("account", "words", "end", "state"), ENDS.values(), ids=list(ENDS))
def test_send_ping_and_show_say_the_same_of_an_account(rig, account, words, end, state):
    """Only an origin that is off is said to be off."""
    if isinstance(account, str):
        rig.client.hset(keys.ACCOUNTS, "acme", account)
    else:
        set_account("acme", **account)
    assert f"account acme {words}: its postbacks will be {end}." in said("send", "acme", "-")
    pinged = said("ping", "acme")
    assert f"Account acme {words}: its postbacks would be {end}." in pinged
    assert ("--event FILE" in pinged) == isinstance(account, dict)
    rig.tick()
    (kept,) = [key.decode().removeprefix(keys.RECORD) for key in rig.client.keys(f"{keys.RECORD}*")]
    shown = CliRunner().invoke(main, ["show", kept]).stdout
    assert (f"{state}: its account {words}" in shown) == (state != "waiting")


def test_send_with_a_url_warns_of_an_origin_that_is_off(broker):
    """A postback of that origin would be skipped all the same."""
    del broker
    set_account("acme", url="https://acme.example/", off={"SUB"})
    to = ("--url", "https://acme.example/test")
    assert "account acme has switched off SUB: its postbacks will be skipped." in said(
        "send", "acme", "-", *to
    )
    assert "Warning" not in said("send", "nobody", "-", *to)
    assert "Warning" not in said("send", "acme", "-", *to, text=json.dumps(MO))


def test_send_with_a_url_warns_of_an_account_that_cannot_be_read(rig):
    """The postback is put off until the account is set anew, since it must not go out unsigned."""
    rig.client.hset(keys.ACCOUNTS, "acme", "no JSON")
    warned = said("send", "acme", "-", "--url", "https://acme.example/test")
    assert "account acme cannot be read until it is set anew: its postbacks wait for that." in warned


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("unknown_account", "its account was not known"),
        ("account_unreadable", "its account cannot be read until it is set anew"),
        ("origin_off", "its account has switched off SUB"),
        ("no_url", "its account has no URL for SUB"),
        ("expired", "its time (expires) had passed before it was taken in"),
        ("backlog_full", "its account had too many waiting"),
        ("revoked", ""),
        ("the message is no JSON: {x}", "the message is no JSON: {x}"),
    ],
)
def test_every_reason_of_the_ledger_has_its_words(reason, words):
    """A reason that is no constant is words already, whatever stands in it."""
    assert routing.reason_words(reason, "SUB") == words
