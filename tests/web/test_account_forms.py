"""Forms of an admin: an account is made and changed, its secrets by name alone, each refusal beside its field."""

from __future__ import annotations

import pytest
from helpers import environment, set_account
from identities import Identity

from postbacks.accounts import redis_accounts, secrets
from postbacks.catalogue import ORIGINS
from postbacks.operate import journal_entries

CLIENT = Identity("client")
PIN = f"sha256//{'A' * 43}="
URL = "https://acme.example/postbacks"
HIDDEN = "https://bob:hunter2@acme.example/?key=k3y"


@pytest.fixture(autouse=True)
def _key():
    with environment(POSTBACKS_SECRET_KEY=secrets.new_key()):
        yield


def stored(name: str = "acme"):
    return redis_accounts().get(name)


def faults(page: str) -> set[str]:
    """Return the fields that a page marks as at fault."""
    return {part.split('"')[0] for part in page.split('id="mistake-')[1:]}


# -- a new one -------------------------------------------------------------------------------------


def test_an_account_is_made_and_stands_in_the_journal(world, browse):
    browser = browse()
    assert 'href="/new-account"' in browser.get("/accounts").text
    fields = {
        "name": "acme",
        "url": URL,
        "mo_url": f"{URL}/mo",
        "on": ["SMS_MO", "SMS_MT"],
        "why": "ticket 812",
    }
    made = browser.post("/new-account", data=fields)
    assert (made.status_code, made.headers["location"]) == (303, "/accounts/acme")
    account = stored()
    assert (account.url, account.mo_url, account.off) == (
        URL,
        f"{URL}/mo",
        set(ORIGINS) - {"SMS_MO", "SMS_MT"},
    )
    (entry,) = journal_entries(account="acme")
    assert (entry.action, entry.by, entry.why, entry.details["new"]) == (
        "account.set",
        "ann",
        "ticket 812",
        True,
    )


@pytest.mark.parametrize(
    ("fields", "at_fault", "words"),
    [
        ({"name": "a b", "url": URL}, {"name"}, "is no account name"),
        ({"name": "acme", "url": "acme.example"}, {"url"}, "is no absolute http or https URL"),
        ({"name": "acme", "url": URL, "mo_url": "ftp://x/"}, {"mo_url"}, "is no absolute http or https URL"),
        ({"name": "acme", "url": "http://169.254.169.254/"}, {"url"}, "may not be sent to"),
        ({"name": "acme"}, set(), "An account needs a URL"),
        ({"name": "known", "url": URL}, set(), "There is an account known already"),
    ],
    ids=str,
)
def test_an_account_that_cannot_be_is_refused_beside_its_field_and_what_was_typed_stays(
    world, browse, fields, at_fault, words
):
    set_account("known", url=f"{URL}/first")
    refused = browse().post("/new-account", data=fields | {"on": list(ORIGINS)})
    assert refused.status_code == 400
    assert faults(refused.text) == at_fault
    assert words in refused.text
    assert f'value="{fields["name"]}"' in refused.text
    assert (stored(), stored("known").url) == (None, f"{URL}/first")


# -- where it goes ---------------------------------------------------------------------------------


def test_urls_and_origins_are_replaced_together_and_an_url_with_a_secret_stays_unseen(world, browse):
    set_account("acme", url=HIDDEN, mo_url=f"{URL}/mo", off=frozenset({"SMS_MT"}))
    browser = browse()
    page = browser.get("/accounts/acme/change").text
    assert "hunter2" not in page
    assert "k3y" not in page
    assert f'value="{URL}/mo"' in page
    assert page.count('name="on"') - page.count("checked> ") == 1
    address = "/accounts/acme/change/urls"
    changed = browser.post(address, data={"url": "", "mo_url": "", "on": list(ORIGINS), "why": "ticket 812"})
    assert (changed.status_code, changed.headers["location"]) == (303, "/accounts/acme")
    account = stored()
    assert (account.url, account.mo_url, account.off) == (HIDDEN, None, frozenset())
    assert journal_entries(account="acme")[0].why == "ticket 812"
    browser.post(address, data={"url": "", "drop": "url", "pass_url": f"{URL}/pass", "on": "SMS_MO"})
    assert (stored().url, stored().pass_url) == (None, f"{URL}/pass")
    assert stored().off == set(ORIGINS) - {"SMS_MO"}
    refused = browser.post(
        address, data={"url": "https://acme example/", "pass_url": "", "on": list(ORIGINS)}
    )
    assert (refused.status_code, faults(refused.text)) == (400, {"url"})
    assert browser.post(address, data={"on": list(ORIGINS)}).status_code == 400  # it would have none
    assert stored().pass_url == f"{URL}/pass"


def test_an_account_is_switched_off_and_on_again(world, browse):
    set_account("acme", url=HIDDEN)
    browser = browse()
    browser.post("/accounts/acme/change/urls", data={"url": ""})
    assert (stored().url, stored().off) == (HIDDEN, set(ORIGINS))
    browser.post("/accounts/acme/change/urls", data={"url": "", "on": list(ORIGINS)})
    assert (stored().url, stored().off) == (HIDDEN, frozenset())


def test_an_account_whose_row_cannot_be_read_is_set_anew(world, browse):
    world.client.hset("postbacks:accounts", "acme", "{")
    browser = browse()
    page = browser.get("/accounts/acme/change").text
    assert "cannot be read" in page
    assert "/change/limits" not in page
    assert (
        browser.post("/accounts/acme/change/urls", data={"url": URL, "on": list(ORIGINS)}).status_code == 303
    )
    assert stored().url == URL


# -- headers, TLS, limits --------------------------------------------------------------------------


def test_headers_are_added_replaced_and_taken_off_and_no_value_is_shown(world, browse):
    set_account("acme", url=URL, headers={"X-One": "s3cret-one", "X-Two": "s3cret-two"})
    browser, address = browse(), "/accounts/acme/change/headers"
    fields = {"header": "Authorization", "text": "Bearer hunter2", "drop": "X-One"}
    assert browser.post(address, data=fields).status_code == 303
    account = stored()
    assert account.headers == {"X-Two": "s3cret-two"}
    assert secrets.decrypt(account.authorization, "acme", "authorization") == "Bearer hunter2"
    pages = browser.get("/accounts/acme").text + browser.get("/accounts/acme/change").text
    assert "X-Two" in pages
    assert not any(value in pages for value in ("s3cret", "hunter2"))
    for fields, at_fault in (
        ({"header": "Host", "text": "s3cret-host"}, {"header"}),
        ({"header": "X-Two", "text": ""}, {"text"}),
        ({"header": "", "text": ""}, {"header"}),
        ({"header": "X-Three", "text": "s3cret\x00"}, {"header"}),
    ):
        refused = browser.post(address, data=fields)
        assert (refused.status_code, faults(refused.text)) == (400, at_fault), fields
        assert "s3cret" not in refused.text
    assert stored() == account
    browser.post(address, data={"drop": ["Authorization", "X-Two"]})
    assert (stored().headers, stored().authorization) == ({}, None)


def test_without_the_key_of_secrets_none_is_stored_and_the_page_says_why(world, browse):
    set_account("acme", url=URL)
    browser = browse()
    with environment(POSTBACKS_SECRET_KEY=""):
        for address, fields in (
            ("change/headers", {"header": "Authorization", "text": "Bearer hunter2"}),
            ("change/tls", {"client_cert": CLIENT.cert_pem, "client_key": CLIENT.key_pem}),
            ("secrets/rotate", {}),
        ):
            refused = browser.post(f"/accounts/acme/{address}", data=fields)
            assert refused.status_code == 400
            assert "POSTBACKS_SECRET_KEY is not set" in refused.text
            assert "hunter2" not in refused.text
            assert CLIENT.key_pem.splitlines()[1] not in refused.text
    assert (stored().authorization, stored().client_key, stored().secrets) == (None, None, ())


def test_tls_is_set_and_taken_off_and_the_key_is_never_shown(world, browse):
    set_account("acme", url=URL)
    browser, address = browse(), "/accounts/acme/change/tls"
    as_typed = {
        "client_cert": CLIENT.cert_pem.replace("\n", "\r\n"),
        "client_key": CLIENT.key_pem.replace("\n", "\r\n"),
        "ca_bundle": CLIENT.cert_pem,
        "pinned_keys": f"{PIN}\r\n",
    }
    assert browser.post(address, data=as_typed).status_code == 303
    account = stored()
    assert (account.client_cert, account.ca_bundle, account.pinned_keys) == (
        CLIENT.cert_pem,
        CLIENT.cert_pem,
        (PIN,),
    )
    assert secrets.decrypt(account.client_key, "acme", "client_key") == CLIENT.key_pem
    page = browser.get("/accounts/acme/change").text
    assert PIN in page
    assert "PRIVATE KEY" not in page
    for fields, words in (
        ({"client_cert": CLIENT.cert_pem}, "certificate and its key belong together"),
        ({"ca_bundle": "no certificate"}, "ca_bundle holds no PEM certificate"),
        ({"pinned_keys": "sha256//short"}, "is no pinned key"),
        ({}, "Give what is to be set"),
        ({"drop": "secrets"}, "cannot be dropped"),
    ):
        refused = browser.post(address, data=fields)
        assert (refused.status_code, words in refused.text) == (400, True), fields
    assert stored() == account
    browser.post(address, data={"drop": ["ca_bundle", "client_cert", "pinned_keys"]})
    assert (stored().ca_bundle, stored().client_cert, stored().client_key, stored().pinned_keys) == (
        None,
        None,
        None,
        (),
    )


def test_limits_are_set_and_what_is_left_empty_goes_back_to_its_default(world, browse):
    set_account("acme", url=world.receiver.url("/acme"), weight=3, answer_timeout_s=5)
    browser, address = browse(), "/accounts/acme/change/limits"
    assert 'name="weight" size="6" autocomplete="off" value="3"' in browser.get("/accounts/acme/change").text
    fields = {
        "rate": "20/s",
        "max_transfers": "4",
        "answer_timeout_s": "5",
        "weight": "",
        "why": "ticket 812",
    }
    assert browser.post(address, data=fields).headers["location"] == "/accounts/acme"
    account = stored()
    limits = (account.rate, account.max_transfers, account.answer_timeout_s, account.weight)
    assert limits == ("20/s", 4, 5, 1)
    assert account.url == world.receiver.url("/acme")
    assert "ticket 812" in browser.get("/accounts/acme").text
    for name, value in (("rate", "fast"), ("max_transfers", "1.5"), ("weight", "x"), ("weight", "1000")):
        refused = browser.post(address, data={name: value})
        assert (refused.status_code, faults(refused.text)) == (400, {name})
        assert f'value="{value}"' in refused.text
    assert stored() == account


# -- secrets ---------------------------------------------------------------------------------------


def test_a_secret_is_shown_once_in_the_reply_to_its_form(world, browse):
    set_account("acme", url=URL)
    browser, address = browse(), "/accounts/acme/secrets"
    assert "its POSTs are not signed" in browser.get(address).text
    reply = browser.post(f"{address}/rotate", data={"why": "ticket 812"})
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    (sealed,) = stored().secrets
    secret = secrets.decrypt(sealed.value, "acme", "secret")
    assert f"<pre>{secret}</pre>" in reply.text
    again = browser.post(f"{address}/rotate", data={"overlap": "2h"}).text
    assert "1 secret before it signs beside it until" in again
    pages = "".join(
        browser.get(path).text for path in (address, "/accounts/acme", "/accounts/acme/change", "/journal")
    )
    assert "a secret before, until" in pages
    assert "whsec_" not in pages
    entries = journal_entries(account="acme")
    assert [(entry.action, entry.by, entry.details) for entry in entries] == [
        ("secret.rotate", "ann", {"overlap_s": 7200}),
        ("secret.rotate", "ann", {"overlap_s": 86_400}),
    ]
    refused = browser.post(f"{address}/rotate", data={"overlap": "a year"})
    assert (refused.status_code, faults(refused.text)) == (400, {"overlap"})
    assert "is no duration" in refused.text
    assert browser.get(f"{address}/rotate").status_code == 405


def test_without_the_key_an_account_with_a_secret_is_not_pinged_and_the_page_says_why(
    world, browse, receiver
):
    set_account("acme", url=receiver.url())
    browser = browse()
    assert browser.post("/accounts/acme/secrets/rotate", data={}).status_code == 200
    with environment(POSTBACKS_SECRET_KEY=""):
        refused = browser.post("/accounts/acme/ping")
        assert refused.status_code == 400
        assert "POSTBACKS_SECRET_KEY" in refused.text
    assert not receiver.received
    assert browser.post("/accounts/acme/ping").status_code == 200
    assert len(receiver.received) == 1


def test_secrets_are_taken_away_where_the_name_was_typed(world, browse):
    set_account("acme", url=URL)
    browser, address = browse(), "/accounts/acme/secrets"
    browser.post(f"{address}/rotate")
    assert "1 secret is taken away" in browser.get(address).text
    refused = browser.post(f"{address}/remove", data={"typed": "acm"})
    assert (refused.status_code, faults(refused.text)) == (400, {"typed"})
    assert len(stored().secrets) == 1
    removed = browser.post(f"{address}/remove", data={"typed": "acme", "why": "ticket 812"})
    assert removed.headers["location"] == "/accounts/acme"
    assert stored().secrets == ()
    entry = journal_entries(account="acme")[0]
    assert (entry.action, entry.by, entry.why) == ("secret.remove", "ann", "ticket 812")
    assert browser.post(f"{address}/remove", data={"typed": "acme"}).status_code == 400


# -- who may, and where ----------------------------------------------------------------------------

PAGES = ("/new-account", "/accounts/acme/change", "/accounts/acme/secrets", "/forget")
FORMS = (
    "/new-account",
    *(f"/accounts/acme/change/{section}" for section in ("urls", "headers", "tls", "limits")),
    "/accounts/acme/secrets/rotate",
    "/accounts/acme/secrets/remove",
    "/forget/count",
    "/forget/start",
)


@pytest.mark.parametrize("role", ["viewer", "support", "operator", "admin"])
def test_an_admin_alone_may(world, browse_as, role):
    set_account("acme", url=URL)
    before, browser = stored(), browse_as(role)
    statuses = {browser.get(path).status_code for path in PAGES}
    assert statuses == {200 if role == "admin" else 403}
    links = [f'href="{path}"' in browser.get("/accounts/acme").text for path in PAGES[1:3]]
    assert links == [role == "admin"] * 2
    if role != "admin":
        assert {browser.post(path, data={"typed": "acme"}).status_code for path in FORMS} == {403}
        assert stored() == before


def test_no_form_is_taken_from_another_site(world, browse):
    set_account("acme", url=URL)
    before, browser = stored(), browse()
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert {browser.post(path, data={"url": URL}, headers=headers).status_code for path in FORMS} == {403}
    assert stored() == before


def test_accounts_of_an_application_are_not_changed_here(world, browse, monkeypatch):
    monkeypatch.setenv("POSTBACKS_ACCOUNTS", "shop.accounts:store")
    with environment(POSTBACKS_ACCOUNTS="shop.accounts:store"):
        browser = browse()
        accounts_pages = [path for path in PAGES if path != "/forget"]
        replies = [browser.get(path) for path in accounts_pages]
        replies += [
            browser.post(path, data={"name": "acme", "url": URL}) for path in FORMS if "forget" not in path
        ]
    assert {reply.status_code for reply in replies} == {400}
    assert all("Accounts are kept by shop.accounts:store" in reply.text for reply in replies)


def test_an_account_that_is_not_there_and_a_form_that_is_none_are_404(world, browse):
    set_account("acme", url=URL)
    browser = browse()
    for path in ("/accounts/nine/change", "/accounts/nine/secrets"):
        assert browser.get(path).status_code == 404
    assert browser.post("/accounts/acme/change/nothing").status_code == 404
