"""The rules of a change of an account, as a table: what stays, what is replaced, what is refused."""

from __future__ import annotations

import re

import pytest
from helpers import environment
from identities import Identity

from postbacks.accounts import Account, Secret, secrets
from postbacks.accounts.edit import ALL_ORIGINS, DROPPABLE, AccountChange, apply
from postbacks.catalogue import ORIGINS
from postbacks.errors import BadSetting, InvalidAccount

URL = "https://acme.example/postbacks"
PIN = f"sha256//{'A' * 43}="
CLIENT, OTHER = Identity("client"), Identity("other")
#: An account that has something in every field.
ACME = Account(
    name="acme",
    url=URL,
    mo_url=f"{URL}/mo",
    off=frozenset({"SUB"}),
    connect_timeout_s=2,
    answer_timeout_s=3,
    headers={"X-One": "1", "X-Two": "2"},
    authorization="sealed:2:theirs",
    secrets=(Secret(value="sealed:2:signs"),),
    ca_bundle=CLIENT.cert_pem,
    client_cert=CLIENT.cert_pem,
    client_key="sealed:2:key",
    pinned_keys=(PIN,),
    weight=3,
    rate="50/s",
    max_transfers=4,
    unknown={"colour": "blue"},
)


@pytest.fixture(autouse=True)
def _key():
    with environment(POSTBACKS_SECRET_KEY=secrets.new_key()):
        yield


CHANGES = [
    # URLs and origins are replaced together, and nothing else is.
    ({"url": f"{URL}/new"}, {"url": f"{URL}/new", "mo_url": None, "off": frozenset()}),
    ({"pass_url": f"{URL}/p"}, {"url": None, "mo_url": None, "pass_url": f"{URL}/p", "off": frozenset()}),
    ({"url": URL, "off": {"SMS_MT"}}, {"mo_url": None, "off": {"SMS_MT"}}),
    ({"url": URL, "off": {ALL_ORIGINS}}, {"mo_url": None, "off": set(ORIGINS)}),
    ({"off": {ALL_ORIGINS}}, {"off": set(ORIGINS)}),  # it wants nothing, and keeps its URLs
    # A URL that is kept stays, and one of the others has to.
    ({"pass_url": f"{URL}/p", "keep": {"mo_url"}}, {"url": None, "pass_url": f"{URL}/p", "off": frozenset()}),
    ({"keep": {"url", "mo_url"}, "off": {"SMS_MT"}}, {"off": {"SMS_MT"}}),
    ({"keep": {"url"}}, {"mo_url": None, "off": frozenset()}),
    # Headers are added and taken off by name, in whatever case.
    ({"headers": {"X-Three": "3"}}, {"headers": {"X-One": "1", "X-Two": "2", "X-Three": "3"}}),
    ({"headers": {"x-one": "9"}}, {"headers": {"X-Two": "2", "x-one": "9"}}),
    ({"headers": {"x-one": ""}}, {"headers": {"X-Two": "2"}}),
    ({"headers": {"authorization": ""}}, {"authorization": None}),
    ({"drop": {"headers"}}, {"headers": {}, "authorization": None}),
    ({"drop": {"headers"}, "headers": {"X-Three": "3"}}, {"headers": {"X-Three": "3"}, "authorization": None}),
    # Everything else by itself.
    ({"connect_timeout_s": 5}, {"connect_timeout_s": 5}),
    ({"rate": "30/min", "max_transfers": 1, "weight": 0.5}, {"rate": "30/min", "max_transfers": 1, "weight": 0.5}),
    ({"ca_bundle": OTHER.cert_pem}, {"ca_bundle": OTHER.cert_pem}),
    ({"drop": {"ca_bundle"}}, {"ca_bundle": None}),
    ({"drop": {"client_cert"}}, {"client_cert": None, "client_key": None}),
    ({"drop": {"pinned_keys", "rate"}}, {"pinned_keys": (), "rate": None}),
    ({"drop": {"weight"}, "weight": 2}, {"weight": 2}),  # what is given is set after what is dropped
]  # fmt: skip


@pytest.mark.parametrize(("change", "changed"), CHANGES, ids=[" ".join(change) for change, _ in CHANGES])
def test_a_change_replaces_what_it_gives_and_leaves_the_rest(change, changed):
    fields = {name: frozenset(value) if isinstance(value, set) else value for name, value in change.items()}
    after = apply(ACME, AccountChange("acme", **fields))
    assert after == ACME.model_copy(update=changed)
    assert after.unknown == {"colour": "blue"}


@pytest.mark.parametrize("field", DROPPABLE)
def test_whatever_can_be_dropped_goes_back_to_its_default(field):
    after = apply(ACME, AccountChange("acme", drop=frozenset({field})))
    default = Account(name="acme")
    assert all(getattr(after, name) == getattr(default, name) for name in DROPPABLE[field])


def test_secrets_of_a_change_are_stored_encrypted_for_their_account_and_field():
    after = apply(ACME, AccountChange("acme", headers={"AUTHORIZATION": "Bearer hunter2"}))
    assert "hunter2" not in after.row()
    assert secrets.decrypt(after.authorization, "acme", "authorization") == "Bearer hunter2"
    change = AccountChange("acme", client_cert=CLIENT.cert_pem, client_key=CLIENT.key_pem)
    after = apply(ACME, change)
    assert "PRIVATE KEY" not in after.row()
    assert secrets.decrypt(after.client_key, "acme", "client_key") == CLIENT.key_pem
    assert CLIENT.key_pem.splitlines()[1] not in repr(change)


def test_no_secret_is_stored_without_a_key():
    with (
        environment(POSTBACKS_SECRET_KEY=""),
        pytest.raises(BadSetting, match="POSTBACKS_SECRET_KEY is not set"),
    ):
        apply(ACME, AccountChange("acme", headers={"Authorization": "Bearer x"}))


REFUSED = [
    ({}, "needs a URL"),
    ({"off": {"SUB"}}, "needs a URL"),
    ({"off": {"SUBS"}, "url": URL}, "no such origin"),
    ({"keep": {"pass_url"}}, "needs a URL"),
    ({"keep": {"xml_url"}}, "no such URL"),
    ({"url": "ftp://acme.example/"}, "no absolute http or https URL"),
    ({"url": "https://acme.example:0/"}, "port 0"),
    ({"url": "https://user:pw@acme.example/"}, "has a user"),  # and an Authorization header
    ({"headers": {"X-A": "1", "x-a": "2"}}, "stands twice"),
    ({"headers": {"Authorization": "a", "authorization": "b"}}, "stands twice"),
    ({"headers": {"Authorization": "a\r\nb: c"}}, "characters that a header cannot carry"),
    ({"headers": {f"X-{number}": "1" for number in range(32)}}, "34 headers"),
    ({"connect_timeout_s": 0}, "connect_timeout_s: must be greater than 0"),
    ({"answer_timeout_s": 61}, "answer_timeout_s: must be less than or equal to 60"),
    ({"rate": "fast"}, "is no rate"),
    ({"rate": ""}, "is no rate"),
    ({"weight": 0}, "weight: must be"),
    ({"max_transfers": 0}, "max_transfers: must be"),
    ({"pinned_keys": ("sha256//short",)}, "no pinned key"),
    ({"client_cert": CLIENT.cert_pem}, "certificate and its key belong together"),
    ({"client_key": CLIENT.key_pem}, "certificate and its key belong together"),
    ({"client_cert": "pem", "client_key": CLIENT.key_pem}, "client_cert holds no PEM certificate"),
    ({"client_cert": CLIENT.cert_pem, "client_key": "pem"}, "client_key holds no PEM private key"),
    ({"client_cert": CLIENT.cert_pem, "client_key": OTHER.key_pem}, "client_key is not the key of the client cert"),
    ({"ca_bundle": CLIENT.key_pem}, "ca_bundle holds no PEM certificate"),
    ({"drop": {"url"}}, "url cannot be dropped"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"), REFUSED, ids=[f"{' '.join(change)}: {words}" for change, words in REFUSED]
)
def test_a_change_that_cannot_be_is_refused_with_its_reason(change, words):
    fields = {name: frozenset(value) if isinstance(value, set) else value for name, value in change.items()}
    with pytest.raises(InvalidAccount, match=re.escape(words)):
        apply(ACME, AccountChange("acme", **fields))


def test_a_new_account_needs_a_url_or_wants_nothing():
    with pytest.raises(InvalidAccount, match="needs a URL"):
        apply(None, AccountChange("acme", answer_timeout_s=3))
    with pytest.raises(InvalidAccount, match="is no account name"):
        apply(None, AccountChange("a b", url=URL))
    assert apply(None, AccountChange("acme", url=URL, weight=2)) == Account(name="acme", url=URL, weight=2)
    assert apply(None, AccountChange("quiet", off=frozenset({ALL_ORIGINS}))).off == set(ORIGINS)


def test_an_account_that_cannot_be_read_is_set_anew_or_not_at_all():
    unreadable = Account.model_construct(name="acme", unreadable=True)
    with pytest.raises(InvalidAccount, match="cannot be read; set the account anew first"):
        apply(unreadable, AccountChange("acme", answer_timeout_s=3))
    assert apply(unreadable, AccountChange("acme", url=URL)) == Account(name="acme", url=URL)
