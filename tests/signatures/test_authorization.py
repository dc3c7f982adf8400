"""An account's Authorization header: sealed, sent with each of its POSTs, shown nowhere."""

from __future__ import annotations

import json
import logging

import pytest
from helpers import environment, set_account
from signing import EVENT, KEY, call

from postbacks import keys, send_postback
from postbacks.accounts import make_account, redis_accounts, secrets
from postbacks.errors import InvalidAccount
from postbacks.settings import load
from postbacks.transport.profile import Profile

TOKEN = "Bearer hunter2.hunter2"
HEADER = ("--header", f"Authorization: {TOKEN}")


def sealed() -> str | None:
    """The field of the stored account."""
    return redis_accounts().get("acme").authorization


@pytest.mark.parametrize("value", [TOKEN, "Token 1:2/3==", "Basic dXNlcjpwYXNz", "without-a-scheme"])
def test_an_authorization_header_is_sent_with_each_post_and_sealed_in_the_store(rig, acme, value):
    """Whatever its scheme; other settings leave it as it is, and an empty one takes it off."""
    assert call("account", "set", "acme", "--header", f"authorization: {value}").exit_code == 0
    assert (acme().headers["authorization"], acme().headers["authorization"]) == (value, value)
    assert secrets.is_sealed(sealed())
    assert value not in rig.client.hget(keys.ACCOUNTS, "acme").decode()
    assert call("account", "set", "acme", "--rate", "1000/s", "--header", "X-Team: one").exit_code == 0
    assert (acme().headers["authorization"], acme().headers["x-team"]) == (value, "one")
    assert call("account", "set", "acme", "--header", "AUTHORIZATION:").exit_code == 0
    assert "authorization" not in acme().headers
    assert sealed() is None


def test_dropping_the_headers_drops_it_too(acme):
    call("account", "set", "acme", *HEADER, "--header", "X-Team: one")
    assert call("account", "set", "acme", "--drop", "headers").exit_code == 0
    assert {"authorization", "x-team"}.isdisjoint(acme().headers)


def test_it_is_shown_nowhere(rig, acme, caplog):
    """Neither by commands nor in logs, errors, Redis or a repr; that there is one is."""
    caplog.set_level(logging.DEBUG)
    outputs = [call("account", "set", "acme", *HEADER)]
    acme()
    outputs += [
        call("account", "show", "acme"), call("account", "show", "acme", "--json"), call("account", "list"),
        call("account", "list", "--json"), call("ping", "acme"), call("ping", "acme", "--json"),
        call("account", "set", "acme", *HEADER, "--header", "authorization: hunter2"),
        call("account", "set", "acme", "--header", "Authorization: hunter2\n"),
        call("account", "set", "acme", "--url", "https://us:hunter2@host.example/"),
        call("doctor"),
    ]  # fmt: skip
    account = redis_accounts().get("acme")
    profile = Profile.of(account, load(), 0)
    plain = make_account("acme", authorization=TOKEN)
    said = "\n".join(
        [*(one.output for one in outputs), caplog.text, repr(account), repr(profile), repr(plain)]
    )
    said += str([plain.to_public_dict(), *rig.client.hgetall(keys.ACCOUNTS).values()])
    assert "hunter2" not in said
    assert "sealed:" not in "\n".join(one.output for one in outputs)
    assert "Authorization" in outputs[1].stdout
    assert json.loads(outputs[2].stdout)["authorization"] is True


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((*HEADER, "--header", "authorization: x"), "stands twice"),
        (("--header", "Authorization: x\r\nX-B: c"), "characters that a header cannot carry"),
        (("--header", "Authorization: ü"), "characters that a header cannot carry"),
        (("--header", f"Authorization: {'x' * 4097}"), "4097 characters; at most 4096"),
        ((*HEADER, "--url", "https://user:hunter2@host.example/"), "has a user"),
        ((*HEADER, "--url", "https://host.example/", "--mo-url", "https://user@host.example/"), "has a user"),
        (
            (*HEADER, "--url", "https://host.example/", "--pass-url", "https://:pw@host.example/"),
            "has a user",
        ),
    ],
)
def test_one_that_cannot_be_is_2_and_changes_nothing(acme, args, words):
    del acme
    before = redis_accounts().get("acme")
    shown = call("account", "set", "acme", *args)
    assert shown.exit_code == 2, shown.output
    assert words in shown.stderr
    assert "hunter2" not in shown.stderr
    assert redis_accounts().get("acme") == before


def test_a_url_with_a_user_is_refused_while_the_account_has_the_header(acme):
    """The other order; once the header is off, the URL is taken."""
    call("account", "set", "acme", *HEADER)
    shown = call("account", "set", "acme", "--mo-url", "https://user:pw@host.example/")
    assert (shown.exit_code, "'Authorization:' takes the header off" in shown.stderr) == (2, True)
    assert secrets.decrypt(sealed(), "acme", "authorization") == TOKEN
    assert acme() is not None
    both = ("--header", "Authorization:", "--url", "https://user:pw@host.example/")
    assert call("account", "set", "acme", *both).exit_code == 0


def test_a_url_of_the_calls_own_keeps_its_user(rig, acme, receiver):
    """Each POST has one Authorization header: of the user in the URL at hand, else of the account."""
    del acme
    call("account", "set", "acme", *HEADER)
    with_user = receiver.url("/own").replace("http://", "http://us:pw@")
    own = send_postback.apply_async(("acme", EVENT), {"url": with_user}).id
    other = send_postback.apply_async(("acme", EVENT), {"url": receiver.url("/other")}).id
    rig.tick()
    rig.deliver()
    got = {one: posts[0].headers["authorization"] for one, posts in receiver.by_id().items()}
    assert got == {own: "Basic dXM6cHc=", other: TOKEN}


def test_with_a_wrong_key_nothing_is_sent_without_it(rig, acme, receiver, caplog):
    """As with secrets: the account stands still, no attempt is counted, no neighbour waits; sent once the key is there."""
    call("account", "set", "acme", *HEADER)
    set_account("neighbour", url=receiver.url("/neighbour"))
    one, other = send_postback.delay("acme", EVENT).id, send_postback.delay("neighbour", EVENT).id
    rig.tick()
    with environment(POSTBACKS_SECRET_KEY=secrets.new_key()), caplog.at_level(logging.ERROR):
        rig.deliver()
    assert list(receiver.by_id()) == [other]
    assert (rig.record(one).state, rig.record(one).attempts) == ("waiting", ())
    assert "POSTBACKS_SECRET_KEY does not open" in caplog.text
    rig.advance(31)
    for _ in range(2):  # it is looked up; then its lane takes turns again
        rig.deliver()
    assert receiver.by_id()[one][0].headers["authorization"] == TOKEN
    assert acme().attempt == 1


@pytest.mark.parametrize("key", ["", "no key"])
def test_without_a_key_it_cannot_be_set(acme, key):
    del acme
    with environment(POSTBACKS_SECRET_KEY=key):
        shown = call("account", "set", "acme", *HEADER)
    assert (shown.exit_code, sealed()) == (2, None)
    assert "POSTBACKS_SECRET_KEY is " in shown.stderr


def test_it_is_sealed_anew_with_the_secrets(acme):
    del acme
    call("account", "set", "acme", *HEADER)
    fresh = secrets.new_key()
    with environment(POSTBACKS_SECRET_KEY=f"{fresh},{KEY}"):
        shown = call("account", "secret", "reseal")
    assert shown.stderr.startswith(
        "Sealed anew with the first key: 0 secrets, 0 client keys and 1 Authorization headers.\n"
    )
    with environment(POSTBACKS_SECRET_KEY=fresh):
        assert secrets.decrypt(sealed(), "acme", "authorization") == TOKEN


def test_an_application_gives_it_as_a_field_and_not_among_the_headers(rig, acme):
    """An application's own store may keep it plain; among the headers the error names the field."""
    with pytest.raises(InvalidAccount, match="has a field of its own: authorization"):
        make_account("acme", headers={"authorization": TOKEN})
    with pytest.raises(InvalidAccount, match="header Authorization has a value"):
        make_account("acme", authorization="x\ny: z")
    url = redis_accounts().get("acme").url
    redis_accounts().set(make_account("acme", url=url, authorization=TOKEN))
    assert acme().headers["authorization"] == TOKEN
    # what somebody put into the store by hand is checked before it is sent
    rig.client.hset(
        keys.ACCOUNTS, "acme", json.dumps({"name": "acme", "url": url, "authorization": "x\ny: z"})
    )
    assert acme() is None
    one = send_postback.delay("acme", EVENT).id
    rig.tick()
    rig.deliver()
    assert (rig.record(one).state, rig.record(one).attempts) == ("waiting", ())
