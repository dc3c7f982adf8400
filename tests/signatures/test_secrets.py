"""Secrets of accounts: sealed, changed, never shown, and never lost to somebody else's change."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from helpers import environment, set_account
from identities import Identity, authority
from signing import EVENT, KEY, call, rotate, signatures

from postbacks import keys, send_postback
from postbacks.accounts import Account, redis_accounts
from postbacks.accounts import secrets as vault
from postbacks.devtools.receiver import Receiver

NEXT_KEY = vault.new_key()


@pytest.fixture
def tls_files(tmp_path):
    """Paths of a certificate, its key and another key."""
    cert, key = authority().write(tmp_path, "client")
    _, other = Identity("other").write(tmp_path, "other")
    return {"cert": cert, "key": key, "other": other}


# -- keys ------------------------------------------------------------------------------------------


def test_with_a_wrong_key_nothing_is_sent_unsigned_and_no_neighbour_waits(rig, acme, receiver, caplog):
    rotate()
    set_account("neighbour", url=receiver.url("/neighbour"))
    one, other = send_postback.delay("acme", EVENT).id, send_postback.delay("neighbour", EVENT).id
    rig.tick()
    with environment(POSTBACKS_SECRET_KEY=NEXT_KEY), caplog.at_level(logging.ERROR):
        rig.deliver()
    assert list(receiver.by_id()) == [other]
    assert (rig.record(one).state, rig.record(one).attempts) == ("waiting", ())
    assert (
        "its account stands still: it cannot be used (the workers' logs say why)" in call("show", one).stdout
    )
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "account=acme" in said[0]
    assert "POSTBACKS_SECRET_KEY does not open" in said[0]
    rig.advance(31)  # it stands still for half a minute
    for _ in range(2):  # it is looked up; then its lane takes turns again
        rig.deliver()
    assert rig.record(one).state == "delivered"
    assert [(signatures(each), each.attempt) for each in receiver.by_id()[one]] == [(1, 1)]
    assert acme() is not None


@pytest.mark.parametrize("secrets", [({"value": "whsec_"},), ({"value": "whsec_abc", "expires_ms": 1},)])
def test_a_secret_that_cannot_sign_sends_nothing(rig, acme, secrets):
    redis_accounts().set(Account(name="acme", url=redis_accounts().get("acme").url, secrets=secrets))
    assert acme() is None
    rig.tick()


@pytest.mark.parametrize("keys_set", ["", "no key"])
def test_without_a_key_rotate_is_2_and_changes_nothing(acme, keys_set):
    del acme
    with environment(POSTBACKS_SECRET_KEY=keys_set):
        shown = call("account", "secret", "rotate", "acme")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.count("\n") == 1
    assert "POSTBACKS_SECRET_KEY is " in shown.stderr
    assert redis_accounts().get("acme").secrets == ()


def test_the_key_is_changed_by_sealing_everything_anew(acme, tls_files):
    secret = rotate()
    rotate()
    assert call(
        "account", "set", "acme", "--client-cert", tls_files["cert"], "--client-key", tls_files["key"]
    ).exit_code == 0  # fmt: skip
    set_account("unsigned", url="http://127.0.0.1:8080/")
    fresh = call("account", "secret", "new-key").stdout.strip()
    with environment(POSTBACKS_SECRET_KEY=f"{fresh},{KEY}"):
        shown = call("account", "secret", "reseal")
    assert shown.exit_code == 0
    assert shown.stderr.startswith("Sealed anew with the first key: 2 secrets and 1 client keys.\n")
    with environment(POSTBACKS_SECRET_KEY=fresh):
        account = redis_accounts().get("acme")
        assert [vault.decrypt(one.value, "acme", "secret") for one in account.secrets][1] == secret
        assert "PRIVATE KEY" in vault.decrypt(account.client_key, "acme", "client_key")
    with environment(POSTBACKS_SECRET_KEY=KEY):
        shown = call("account", "secret", "reseal")
    assert shown.exit_code == 2
    assert "Account acme: POSTBACKS_SECRET_KEY does not open" in shown.stderr


def rows(client, **changes):
    """Put a row of evil into the broker that has acme's, with these changes."""
    row = json.loads(client.hget(keys.ACCOUNTS, "acme")) | {"name": "evil"}
    client.hset(keys.ACCOUNTS, "evil", json.dumps(row | changes))


def of_the_version_before(text):
    """A seal as 0.1.0 makes it."""
    return "sealed:" + Fernet(KEY).encrypt(text.encode()).decode()


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("secrets", lambda encrypt: {"secrets": [{"value": encrypt}]}),
        ("another field", lambda encrypt: {"secrets": [], "authorization": encrypt}),
        ("client key", lambda encrypt: {"secrets": [], "client_cert": "x", "client_key": encrypt}),
        ("a whole row", lambda encrypt: {"name": "acme", "secrets": [{"value": encrypt}]}),
    ],
)
def test_a_seal_that_is_copied_to_another_account_or_field_opens_nothing_there(rig, acme, field, make):
    """A client of the broker has acme's secret sign what it likes, or has it sent to it; nothing leaves."""
    rotate()
    assert acme() is not None
    encrypt = redis_accounts().get("acme").secrets[0].value
    with Receiver() as evil:
        rows(rig.client, url=evil.url(), **make(encrypt))
        one = send_postback.delay("evil", EVENT).id
        rig.tick()
        rig.deliver()
        assert not evil.received, field
    assert rig.record(one).state == "waiting"
    assert acme() is not None


def test_old_seals_are_opened_until_they_are_sealed_anew_and_bound(rig, acme):
    """Of a secret, a client key and an Authorization header; after that, a copy in another row signs nothing."""
    secret, token = vault.new_secret(), "Bearer hunter2"
    url = redis_accounts().get("acme").url
    redis_accounts().set(
        Account(name="acme", url=url, secrets=({"value": of_the_version_before(secret)},),
                client_key=of_the_version_before("pem"), authorization=of_the_version_before(token))
    )  # fmt: skip
    assert (signatures(acme()), acme().headers["authorization"]) == (1, token)
    with Receiver() as evil:

        def sent():
            rows(rig.client, url=evil.url(), authorization=None, client_key=None)
            send_postback.delay("evil", EVENT)
            rig.tick()
            rig.deliver()
            return len(evil.received)

        assert sent() == 1, "what docs/security.md says of old seals"
        rig.client.hdel(keys.ACCOUNTS, "evil")  # a copy that is there when it is called is bound as well
        shown = call("account", "secret", "reseal")
        assert shown.stderr.startswith(
            "Sealed anew with the first key: 1 secrets, 1 client keys and 1 Authorization headers.\n"
        )
        assert (signatures(acme()), acme().headers["authorization"]) == (1, token)
        row = rig.client.hget(keys.ACCOUNTS, "acme").decode()
        assert row.count('"sealed:2:') == row.count('"sealed:') == 3
        assert sent() == 1


def test_a_change_of_secrets_is_in_force_at_the_next_claim(rig, acme):
    """The scripts' row has the version of the new one at once, so that a worker that knows another reads anew."""

    def published():
        return rig.client.hget(keys.ROUTES, "acme").decode().split("\n")[2]

    seen = [published()]
    for command in (("rotate", "acme", "--overlap", "0"), ("remove", "acme")):
        assert call("account", "secret", *command).exit_code == 0
        assert published() == redis_accounts().get("acme").version
        seen.append(published())
    assert seen[0] == seen[2] != seen[1]
    assert acme() is not None


def test_a_secret_is_removed(acme):
    rotate()
    assert call("account", "secret", "remove", "acme").exit_code == 0
    assert "webhook-signature" not in acme().headers
    shown = call("account", "secret", "remove", "acme")
    assert shown.exit_code == 1
    assert "has no secret" in shown.stderr


@pytest.mark.parametrize("command", ["rotate", "remove"])
def test_an_account_that_is_not_there_is_1(broker, command):
    del broker
    shown = call("account", "secret", command, "nobody")
    assert shown.exit_code == 1
    assert "There is no account 'nobody'" in shown.stderr


@pytest.mark.parametrize("length", ["a day", "-1", "1w", "91d", "1.5h", "99999999999"])
def test_an_overlap_that_is_none_is_2(acme, length):
    del acme
    shown = call("account", "secret", "rotate", "acme", "--overlap", length)
    assert (shown.exit_code, shown.stdout) == (2, "")


# -- nothing is shown ------------------------------------------------------------------------------


def everything(client):
    """Every byte that the broker holds."""
    found = []
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        read = {
            b"string": client.get, b"hash": client.hgetall, b"set": client.smembers,
            b"list": lambda k: client.lrange(k, 0, -1), b"zset": lambda k: client.zrange(k, 0, -1),
            b"stream": client.xrange,
        }[kind]  # fmt: skip
        found.append(repr((key, read(key))))
    assert found
    return "\n".join(found)


def test_no_secret_no_key_and_no_value_of_a_header_is_shown_or_kept_in_clear(rig, acme, tls_files, caplog):
    caplog.set_level(logging.DEBUG)
    args = (
        "--header",
        "X-Token: hunter2",
        "--client-cert",
        tls_files["cert"],
        "--client-key",
        tls_files["key"],
    )
    assert call("account", "set", "acme", *args).exit_code == 0
    secret = rotate()
    acme()
    line = Path(tls_files["key"]).read_text().splitlines()[2]
    outputs = [
        call("account", "show", "acme"), call("account", "show", "acme", "--json"), call("account", "list"),
        call("account", "list", "--json"), call("ping", "acme", "--json"), call("ping", "acme"),
        call("account", "secret", "rotate", "nobody"),
    ]  # fmt: skip
    said = "\n".join([*(one.output for one in outputs), caplog.text, repr(redis_accounts().get("acme"))])
    for hidden in (secret.removeprefix("whsec_"), line, KEY):
        assert hidden not in said
        assert hidden not in everything(rig.client)
    shown = "\n".join(one.output for one in outputs)
    assert "hunter2" not in shown
    assert "X-Token" in shown
    assert "sealed:" not in shown


# -- two at a time ---------------------------------------------------------------------------------


def test_changes_at_the_same_time_do_not_lose_each_other(broker):
    del broker
    set_account("acme", url="http://127.0.0.1:8080/")
    set_account("other", url="http://127.0.0.1:8080/")
    begin = threading.Barrier(4)

    def rotating():
        begin.wait(60)
        redis_accounts().change(
            "acme",
            lambda found, now_ms: found.rotated(
                vault.encrypt(vault.new_secret(), "acme", "secret"), now_ms, 60_000
            ),
        )

    def setting(number):
        begin.wait(60)
        for each in range(20):
            redis_accounts().change(
                "acme" if each % 2 else "other",
                lambda found, _: found.model_copy(
                    update={"headers": {**found.headers, f"X-{number}-{len(found.headers)}": "x"}}
                ),
            )

    threads = [threading.Thread(target=rotating) for _ in range(2)]
    threads += [threading.Thread(target=setting, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    acme, other = redis_accounts().get_many(["acme", "other"]).values()
    assert (len(acme.headers), len(other.headers), len(acme.secrets)) == (20, 20, 2)


def test_a_change_that_is_overtaken_is_made_anew(broker):
    with broker.client() as client:
        set_account("acme", url="http://127.0.0.1:8080/")
        seen = []

        def edit(found, now_ms):
            seen.append(now_ms)
            if len(seen) == 1:  # somebody else, between the read and the write
                changed = found.model_copy(update={"answer_timeout_s": 3.0})
                client.hset(keys.ACCOUNTS, "acme", changed.model_dump_json())
            return found.model_copy(update={"connect_timeout_s": 2.0})

        now = redis_accounts().change("acme", edit)
    assert len(seen) == 2
    assert (now.answer_timeout_s, now.connect_timeout_s) == (3.0, 2.0)
