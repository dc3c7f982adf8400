"""Accounts: names, the routing of the catalogue, the store in Redis and one of the application's own."""

from __future__ import annotations

import json

import pytest
from events import examples
from helpers import environment

from postbacks import accounts, keys
from postbacks.accounts import Account, AccountStore, make_account, redis_accounts, store
from postbacks.catalogue import EVENTS, ORIGINS
from postbacks.errors import BadSetting, InvalidAccount, PostbacksError
from postbacks.names import check_name

ALL = "http://127.0.0.1:8080/all"
MO = "http://127.0.0.1:8080/mo"
PASS = "http://127.0.0.1:8080/pass"


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "7", "acme", "Acme-2.eu_west@example.com:1+2", "a" * 128])
def test_a_name_is_1_to_128_letters_digits_and_a_few_signs(name):
    """A name comes back as it was given."""
    assert check_name(name) == name


def test_a_number_is_a_name():
    """Applications whose accounts have numbers pass them as they are."""
    assert check_name(42) == "42"


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "a/b",
        "-a",
        ".a",
        "a\n",
        "a\x00",
        "ü",
        "a" * 129,
        None,
        True,
        1.5,
        b"acme",
        ["acme"],
        {},
        -1,
    ],
    ids=ascii,
)
def test_any_other_name_is_refused_with_a_sentence(name):
    """The sentence says what a name may be, and shows at most the beginning of what was given."""
    with pytest.raises(InvalidAccount, match="is no account name: 1 to 128 letters, digits") as refused:
        check_name(name)
    assert len(str(refused.value)) < 200


def test_a_name_that_cannot_even_be_shown_is_refused():
    """A list too deep for repr: such a thing can stand in a message."""
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidAccount, match="is no account name"):
        check_name(deep)


# -- routing (catalogue: Groups) ------------------------------------------------------------------

#: URLs that the account has, and where each group's postbacks go (None: skipped for want of a URL)
ROUTES = [
    ({"url": ALL}, {"general": ALL, "mo": ALL, "mt": ALL, "pass": ALL}),
    ({"url": ALL, "mo_url": MO}, {"general": ALL, "mo": MO, "mt": ALL, "pass": ALL}),
    ({"url": ALL, "pass_url": PASS}, {"general": ALL, "mo": ALL, "mt": ALL, "pass": PASS}),
    ({"url": ALL, "mo_url": MO, "pass_url": PASS}, {"general": ALL, "mo": MO, "mt": ALL, "pass": PASS}),
    ({"mo_url": MO}, {"general": None, "mo": MO, "mt": None, "pass": None}),
    ({"pass_url": PASS}, {"general": None, "mo": None, "mt": None, "pass": PASS}),
    ({}, {"general": None, "mo": None, "mt": None, "pass": None}),
]


@pytest.mark.parametrize(("urls", "wanted"), ROUTES, ids=["+".join(urls) or "none" for urls, _ in ROUTES])
def test_each_group_goes_to_its_url_and_where_it_has_none_to_the_postback_url(urls, wanted):
    """Every row of the catalogue, by its group; without a URL the reason is no_url."""
    account = make_account("acme", **urls)
    for (origin, code), event in EVENTS.items():
        url = wanted[event.group]
        assert account.route(origin, event.group) == ((url, "") if url else (None, "no_url")), (origin, code)


@pytest.mark.parametrize("off", ORIGINS)
def test_an_origin_that_is_off_is_skipped_and_no_other(off):
    """Each origin has its own switch."""
    account = make_account("acme", url=ALL, off={off})
    for origin, _ in examples():
        group = ORIGINS[origin]
        assert account.route(origin, group) == ((None, "origin_off") if origin == off else (ALL, ""))


# -- what a user writes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"name": "a b"}, "'a b' is no account name"),
        ({"name": "acme", "url": "nowhere"}, "'nowhere' is no absolute http or https URL"),
        ({"name": "acme", "mo_url": "ftp://a.example/"}, "no absolute http or https URL"),
        ({"name": "acme", "pass_url": "http://a.example:0/"}, "port 0"),
        ({"name": "acme", "url": 17}, "url: "),
        ({"name": "acme", "off": {"FAX_MT"}}, "FAX_MT: no such origin to switch off; the origins are SUB, "),
        ({"name": "acme", "colour": "red"}, "colour: "),
        ({"name": "acme", "rate": "fast"}, "'fast' is no rate: a number and /s or /min"),
        ({"name": "acme", "rate": "0/s"}, "'0/s' is no rate"),
        ({"name": "acme", "rate": "0.5/min"}, "from 1/min to 10000/s"),
        ({"name": "acme", "rate": "20000/s"}, "from 1/min to 10000/s"),
        ({"name": "acme", "weight": 0}, "weight: must be greater than or equal to 0.1$"),
        ({"name": "acme", "weight": float("nan")}, "weight: must be less than or equal to 100$"),
        (
            {"name": "acme", "max_transfers": 0},
            "max_transfers: must be greater than or equal to 1$",
        ),
        (
            {"name": "acme", "connect_timeout_s": 61},
            "connect_timeout_s: must be less than or equal to 60$",
        ),
        ({"name": "acme", "answer_timeout_s": "x"}, "answer_timeout_s: must be a valid number"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_bad_account_is_refused_with_a_sentence(settings, fault):
    """The error is of one class, whatever is wrong; nothing is in it of pydantic's report."""
    with pytest.raises(InvalidAccount, match=fault) as refused:
        make_account(**settings)
    assert "pydantic" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_listing_shows_no_password_and_no_value_of_a_query():
    """Neither of the three URLs; nothing else of them is lost."""
    secret = "http://user:hunter2@127.0.0.1:8080/{}?token=hunter2"
    account = make_account(
        "acme", url=secret.format("all"), mo_url=secret.format("mo"), pass_url=secret.format("pass"),
        off={"SUB", "MMS_MT"},
    )  # fmt: skip
    shown = account.to_public_dict()
    assert "hunter2" not in json.dumps(shown)
    assert "user" not in json.dumps(shown)
    assert (shown["name"], shown["url"], shown["mo_url"], shown["pass_url"], shown["off"]) == (
        "acme",
        "http://127.0.0.1:8080/all?token=…",
        "http://127.0.0.1:8080/mo?token=…",
        "http://127.0.0.1:8080/pass?token=…",
        ["MMS_MT", "SUB"],
    )


# -- stores ---------------------------------------------------------------------------------------


def test_our_own_store_keeps_accounts_in_redis(broker):
    """Set, get, replace, list by name, remove."""
    ours = redis_accounts()
    acme = make_account("acme", url=ALL.replace("http://", "http://user:hunter2@"), off={"SUB"})
    ours.set(acme)
    ours.set(make_account("Zeta"))
    ours.set(make_account("beta", mo_url=MO))
    assert ours.get("acme") == acme
    assert ours.get("nobody") is None
    assert set(ours.get_many(["acme", "nobody", "beta"])) == {"acme", "beta"}
    assert ours.get_many([]) == {}
    assert [account.name for account in ours.all()] == ["Zeta", "acme", "beta"]
    ours.set(make_account("acme", url=MO))
    assert ours.get("acme") == make_account("acme", url=MO)
    assert ours.remove("acme") is True
    assert ours.remove("acme") is False
    assert ours.get("acme") is None


def stored(broker, name="acme"):
    """The row of an account, as it stands in the broker."""
    with broker.client() as client:
        return json.loads(client.hget(keys.ACCOUNTS, name))


def store_row(broker, **row):
    """Put a row into the broker, as a newer version may have written it."""
    with broker.client() as client:
        client.hset(keys.ACCOUNTS, "acme", json.dumps({"name": "acme", "url": ALL, **row}))


def test_a_row_says_which_of_its_fields_a_reader_must_know(broker):
    """Fields are required without which something else would be sent, or elsewhere; not those of pace. Unset ones
    are absent.
    """
    everything = {
        "url": ALL, "mo_url": MO, "pass_url": PASS, "off": {"SUB", "MMS_MT"}, "headers": {"X-A": "b"},
        "authorization": "Bearer x", "secrets": ({"value": "whsec_AAAA", "expires_ms": 1},), "ca_bundle": "pem",
        "client_cert": "pem", "client_key": "pem", "pinned_keys": (f"sha256//{'A' * 43}=",),
        "connect_timeout_s": 1, "answer_timeout_s": 1, "weight": 2, "rate": "5/s", "max_transfers": 2,
    }  # fmt: skip
    redis_accounts().set(make_account("acme", **everything))
    pace = {"name", "connect_timeout_s", "answer_timeout_s", "weight", "rate", "max_transfers"}
    assert set(stored(broker)) == {"name", "needs", *everything}
    assert set(stored(broker)["needs"]) == set(everything) - pace
    assert redis_accounts().get("acme") == make_account("acme", **everything)
    redis_accounts().set(make_account("acme", rate="5/s"))
    assert stored(broker) == {"name": "acme", "rate": "5/s"}


def test_an_unknown_field_that_nobody_needs_stays_in_the_row_and_makes_another_version(broker):
    """A change and a replacement keep it. Whether a reader knows a field or not, the version is the same."""
    versions = set()
    for value in ({"a": [1]}, {"a": [2]}):
        store_row(broker, colour=value, needs=["url"])
        account = redis_accounts().get("acme")
        assert account.route("SUB", "general") == (ALL, "")
        versions.add(account.version)
    assert len(versions | {make_account("acme", url=ALL).version}) == 3
    redis_accounts().change("acme", lambda before, _: before.model_copy(update={"mo_url": MO}))
    assert stored(broker) == {
        "name": "acme", "url": ALL, "mo_url": MO, "colour": {"a": [2]}, "needs": ["mo_url", "url"]
    }  # fmt: skip
    redis_accounts().set(make_account("acme", url=MO))
    assert stored(broker) == {"name": "acme", "url": MO, "colour": {"a": [2]}, "needs": ["url"]}
    known, unknown = Account(name="acme", off={"SUB"}), Account(name="acme", unknown={"off": ["SUB"]})
    assert (known.version, known.row()) != (Account(name="acme").version, unknown.row())
    assert known.version == unknown.version


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"needs": ["url", "proof"], "proof": "x"}, "proof"),
        ({"needs": ["proof"]}, "proof"),
        ({"needs": ["unreadable"]}, "unreadable"),
        ({"secrets": [{"value": "whsec_AAAA", "algorithm": "ed25519"}]}, "secrets.0.algorithm"),
    ],
)
def test_an_account_that_needs_what_this_version_does_not_know_is_neither_sent_for_nor_changed(
    broker, caplog, row, field
):
    """The log and the error name the field, and say that a newer version is needed; the row stays as it was."""
    store_row(broker, **row)
    before = stored(broker)
    account = redis_accounts().get("acme")
    assert account.route("SUB", "general") == (None, "account_unreadable")
    assert f"a newer version of postbacks is needed, for {field}" in caplog.text
    for write in (
        lambda: redis_accounts().set(make_account("acme", url=MO)),
        lambda: redis_accounts().change("acme", lambda _before, _: make_account("acme", url=MO)),
    ):
        with pytest.raises(InvalidAccount, match=rf"^Account acme needs {field}, which this version"):
            write()
    assert stored(broker) == before


@pytest.mark.parametrize(
    "row", [{"name": "globex"}, {"name": None}, {"needs": 7}, {"needs": [["url"]]}, {"needs": None}]
)
def test_a_row_that_is_another_accounts_or_no_row_is_not_sent_for_and_can_be_set_anew(broker, row):
    """A row that somebody copied must not open the secrets that it was copied with."""
    store_row(broker, **row)
    assert redis_accounts().get("acme").unreadable
    redis_accounts().set(make_account("acme", url=ALL))
    assert redis_accounts().get("acme") == make_account("acme", url=ALL)


class Directory:
    """An application's own store: a class, made by postbacks."""

    def get_many(self, names):
        return {
            name: Account(name=name, url=f"http://127.0.0.1:8080/{name}")
            for name in names
            if name != "nobody"
        }


class Unconfigured:
    """A store that cannot be made, as one on Django's models without its settings."""

    def __init__(self):
        raise RuntimeError("settings are not configured")


DIRECTORY = Directory()
NO_STORE = {"acme": ALL}


@pytest.mark.parametrize("attribute", ["Directory", "DIRECTORY"])
def test_an_application_can_keep_accounts_itself(attribute):
    """POSTBACKS_ACCOUNTS names a class or an object of its own; it is made once."""
    with environment(POSTBACKS_ACCOUNTS=f"{__name__}:{attribute}"):
        found = store().get_many(["acme", "nobody"])
        assert isinstance(store(), AccountStore)
        assert store() is store()
        assert {name: account.url for name, account in found.items()} == {
            "acme": "http://127.0.0.1:8080/acme"
        }
        with pytest.raises(PostbacksError, match="change them there"):
            redis_accounts()  # nothing edits a store that nobody asks


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("no_such_module:store", "cannot be loaded"),
        (f"{__name__}:no_such_attribute", "cannot be loaded"),
        (f"{__name__}", "cannot be loaded"),
        (":", "cannot be loaded"),
        (f"{__name__}:NO_STORE", "has no get_many"),
        (f"{__name__}:Unconfigured", r"cannot be loaded \(settings are not configured\)"),
    ],
)
def test_a_store_that_cannot_be_loaded_is_a_bad_setting(path, fault):
    """The sentence names the variable and its value."""
    with environment(POSTBACKS_ACCOUNTS=path), pytest.raises(BadSetting, match=fault) as refused:
        accounts.store()
    assert f"POSTBACKS_ACCOUNTS={path!r}" in str(refused.value)


def test_an_applications_store_is_asked_for_postbacks(rig):
    """The tick routes by it, and what it does not know is dead."""
    from postbacks import send_postback

    event = examples()["SUB", "N301"]
    with environment(POSTBACKS_ACCOUNTS=f"{__name__}:Directory"):
        known, unknown = send_postback.delay("acme", event), send_postback.delay("nobody", event)
        rig.tick()
        assert rig.record(known.id).url == "http://127.0.0.1:8080/acme"
        assert (rig.record(unknown.id).state, rig.record(unknown.id).reason) == ("dead", "unknown_account")
