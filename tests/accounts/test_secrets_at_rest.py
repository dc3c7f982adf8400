"""Secrets at rest: sealed by the first key, opened by all, and never by another."""

from __future__ import annotations

import base64

import pytest
from cryptography.fernet import Fernet
from helpers import environment

from postbacks.accounts import secrets as vault
from postbacks.errors import BadSetting

OLD, NEW, OTHER = vault.new_key(), vault.new_key(), vault.new_key()


def test_what_is_sealed_is_opened_and_cannot_be_read():
    with environment(POSTBACKS_SECRET_KEY=NEW):
        sealed = vault.encrypt("whsec_abc", "acme", "secret")
        assert vault.is_sealed(sealed)
        assert "whsec_abc" not in sealed
        assert vault.decrypt(sealed, "acme", "secret") == "whsec_abc"
        assert vault.encrypt("whsec_abc", "acme", "secret") != sealed


def test_a_plain_value_of_an_applications_own_store_needs_no_key():
    assert not vault.is_sealed("whsec_abc")
    assert vault.decrypt("whsec_abc", "acme", "secret") == "whsec_abc"


def test_the_first_key_seals_and_all_open():
    with environment(POSTBACKS_SECRET_KEY=OLD):
        before = vault.encrypt("one", "acme", "secret")
    with environment(POSTBACKS_SECRET_KEY=f" {NEW} , {OLD},"):
        assert vault.decrypt(before, "acme", "secret") == "one"
        after = vault.encrypt("one", "acme", "secret")
    with environment(POSTBACKS_SECRET_KEY=NEW):
        assert vault.decrypt(after, "acme", "secret") == "one"


def test_another_key_opens_nothing_and_says_what_to_do():
    with environment(POSTBACKS_SECRET_KEY=OLD):
        sealed = vault.encrypt("one", "acme", "secret")
    with (
        environment(POSTBACKS_SECRET_KEY=OTHER),
        pytest.raises(BadSetting, match="sealed with another key") as refused,
    ):
        vault.decrypt(sealed, "acme", "secret")
    assert OTHER not in str(refused.value)
    assert sealed not in str(refused.value)


@pytest.mark.parametrize("keys", ["", " , ", "no key", "c2hvcnQ="])
def test_without_a_key_nothing_is_sealed_and_the_sentence_says_how_to_make_one(keys):
    with (
        environment(POSTBACKS_SECRET_KEY=keys),
        pytest.raises(BadSetting, match=r"POSTBACKS_SECRET_KEY is .*secret new-key") as refused,
    ):
        vault.encrypt("one", "acme", "secret")
    assert "\n" not in str(refused.value)
    assert "c2hvcnQ" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda sealed: sealed[:-6] + "AAAA==",
        lambda sealed: sealed[:9] + "AAAA" + sealed[13:],
        lambda sealed: sealed[:40],
        lambda sealed: sealed[:12],
        lambda sealed: "sealed:2:",
        lambda sealed: "sealed:",
        lambda sealed: "sealed:2:\xfc",
        lambda sealed: "sealed:\xfc",
        lambda sealed: sealed.replace("sealed:2:", "sealed:"),
    ],
)
def test_a_sealed_value_that_was_changed_is_not_opened(change):
    with environment(POSTBACKS_SECRET_KEY=NEW):
        sealed = vault.encrypt("one", "acme", "secret")
        with pytest.raises(BadSetting, match="does not open"):
            vault.decrypt(change(sealed), "acme", "secret")


@pytest.mark.parametrize(
    ("account", "field"),
    [("acme2", "secret"), ("Acme", "secret"), ("acme", "authorization"), ("acme", "client_key")],
)
def test_a_seal_opens_for_its_account_and_its_field_alone(account, field):
    with environment(POSTBACKS_SECRET_KEY=f"{NEW},{OLD}"):
        sealed = vault.encrypt("one", "acme", "secret")
        assert vault.decrypt(sealed, "acme", "secret") == "one"
        with pytest.raises(BadSetting, match="for another account or field"):
            vault.decrypt(sealed, account, field)


def test_a_seal_of_the_version_before_is_still_opened():
    """A seal of that version is bound to nothing; what is sealed today is never of that kind."""
    before = "sealed:" + Fernet(OLD).encrypt(b"one").decode()
    with environment(POSTBACKS_SECRET_KEY=f"{NEW},{OLD}"):
        assert vault.decrypt(before, "acme", "secret") == vault.decrypt(before, "beta", "client_key") == "one"
        assert vault.encrypt("one", "acme", "secret").startswith("sealed:2:")


def test_a_new_secret_is_one_of_standard_webhooks():
    secrets = {vault.new_secret() for _ in range(20)}
    assert len(secrets) == 20
    for secret in secrets:
        assert secret.startswith("whsec_")
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
