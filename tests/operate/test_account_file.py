"""Accounts as a file: every fault with its line, a plan that is shown before it is done, and no secret in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from identities import Identity

from postbacks import keys
from postbacks.accounts import Account, redis_accounts
from postbacks.accounts.difference import difference
from postbacks.accounts.secrets import decrypt, encrypt, new_key, new_secret
from postbacks.catalogue import ORIGINS
from postbacks.cli import main
from postbacks.errors import BadInput, BrokerUnreachable
from postbacks.ledger import journal as waiting_journal
from postbacks.operate import account_file, accounts
from postbacks.operate.accounts import rotate_secret

URL = "https://acme.example/postbacks"
SECRET, OTHER = new_secret(), new_secret()
CLIENT, STRANGER = Identity("client"), Identity("other")
KEY = new_key()
PIN = f"sha256//{'A' * 43}="


@pytest.fixture(autouse=True)
def _key(rig):
    with environment(POSTBACKS_SECRET_KEY=KEY):
        yield


def plan(text: str, directory: Path = Path()) -> account_file.Plan:
    return account_file.plan(text.encode(), directory)


def faults(text: str, directory: Path = Path()) -> list[tuple[int, str, str]]:
    made = plan(text, directory)
    if made.faults:
        with pytest.raises(BadInput, match="nothing is changed"):
            list(account_file.apply(made))
    return [tuple(fault) for fault in made.faults]


def apply(text: str, directory: Path = Path()) -> dict[str, dict]:
    """Apply a file without faults; return what has changed of each account."""
    made = plan(text, directory)
    assert made.faults == []
    assert list(account_file.apply(made)) == [account.name for account in made.to_do]
    return {account.name: account.changed for account in made.to_do}


def stored(name: str = "acme") -> Account:
    account = redis_accounts().get(name)
    assert account is not None
    return account


def whole(name: str = "acme") -> Account:
    """An account that has something in every field."""
    return Account(
        name=name,
        url="https://user:word@acme.example/all?token=1",
        mo_url=f"{URL}/mo",
        pass_url=f"{URL}/pass",
        off=frozenset({"SUB"}),
        connect_timeout_s=2.5,
        answer_timeout_s=3,
        headers={"X-One": "yes", "X-Two": "{env: HOME}"},
        secrets=({"value": encrypt(SECRET, name, "secret")},),
        ca_bundle=CLIENT.cert_pem,
        client_cert=CLIENT.cert_pem,
        client_key=encrypt(CLIENT.key_pem, name, "client_key"),
        pinned_keys=(PIN,),
        weight=3,
        rate="50/s",
        max_transfers=4,
    )


# -- faults ----------------------------------------------------------------------------------------

#: Texts of files, and the lines, places and words of their faults.
FAULTS = [
    ("", [(1, "", "the file is empty")]),
    ("accounts:\n  a: [\n", [(3, "", "it is no YAML")]),
    ("account: {}\n", [(1, "", "did you mean accounts?")]),
    ("- a\n", [(1, "", "must be a mapping")]),
    ("accounts:\n  bad name: {url: https://x.example/}\n", [(2, "", "no account name")]),
    ("accounts:\n  acme: {}\n", [(2, "acme", "needs a URL")]),
    ("accounts:\n  acme:\n", [(2, "acme", "must be a mapping")]),
    ("accounts:\n  acme:\n    url:\n", [(3, "acme.url", "has no value")]),
    ("accounts:\n  acme:\n    url: ftp://x\n", [(3, "acme.url", "no absolute http or https URL")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    rates: 5/s\n", [(4, "acme", "did you mean rate?")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    rate: 5 a day\n", [(4, "acme.rate", "")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    weight: heavy\n", [(4, "acme.weight", "no number")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    weight: nan\n", [(4, "acme.weight", "")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    max_transfers: 1.5\n", [(4, "acme.max_transfers", "no number")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    off: [SMS]\n", [(4, "acme.off", "no such origin")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    off: [[SMS_MT]]\n", [(4, "acme.off", "one value")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    off: {{a: b}}\n", [(4, "acme.off", "must be a list")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    pinned_keys: [x]\n", [(4, "acme.pinned_keys", "no pinned key")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    ca_bundle: x\n", [(4, "acme.ca_bundle", "no PEM certificate")]),
    ("accounts:\n  acme:\n    url: https://a:b@x.example/\n", [(3, "acme.url", "does not stand in the file")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    secret: {SECRET}\n", [(4, "acme.secret", "does not stand in the file")]),
    (
        f"accounts:\n  acme:\n    url: {URL}\n    headers:\n      authorization: Bearer x\n",
        [(5, "acme.headers.authorization", "does not stand in the file")],
    ),
    (
        f"accounts:\n  acme:\n    url: {URL}\n    headers:\n      Host: x\n      X-A: 1\n      x-a: 2\n",
        [(5, "acme.headers.Host", "sets itself"), (7, "acme.headers.x-a", "two ways of writing")],
    ),
    (f"accounts:\n  acme:\n    url: {URL}\n    secret: {{env: NOT_SET}}\n", [(4, "acme.secret", "is not set here")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    secret: {{file: nowhere}}\n", [(4, "acme.secret", "cannot be read")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    secret: {{keep: true}}\n", [(4, "acme.secret", "nothing to keep")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    secret: {{keep: no}}\n", [(4, "acme.secret", "write {keep: true}")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    secret: {{}}\n", [(4, "acme.secret", "write one of")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    secret: {{envy: A}}\n", [(4, "acme.secret", "did you mean env?")]),
    (f"accounts:\n  acme:\n    url: {URL}\n    secret: {{env: WORD}}\n", [(4, "acme.secret", "24 to 64 bytes")]),
    (
        f"accounts:\n  acme:\n    url: {URL}\n    headers: {{X-A: {{keep: true}}}}\n",
        [(4, "acme.headers.X-A", "nothing to keep")],
    ),
    (
        f"accounts:\n  acme:\n    url: {URL}\n    client_key: {{env: WORD}}\n",
        [(4, "acme.client_key", "belong together")],
    ),
    ("accounts: &a\n  acme: *a\n", [(2, "acme", "'acme' is unknown")]),
    ("[" * 1200, [(1, "", "nested too deep")]),
    ("accounts:\n  a\x00b: 1\n", [(2, "", "U+0000")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FAULTS, ids=[text[:60] for text, _ in FAULTS])
def test_a_fault_is_said_with_its_line(text, expected):
    with environment(WORD="word"):
        found = faults(text)
    assert [fault[:2] for fault in found] == [fault[:2] for fault in expected]
    for (_, _, words), (_, _, of_it) in zip(found, expected, strict=True):
        assert of_it in words
    assert redis_accounts().all() == []


def test_every_fault_is_said_at_once_and_nothing_is_done():
    """In the order of their lines: two accounts of one name, both lines; the right one beside them is not set."""
    text = f"""\
accounts:
  acme:
    url: {URL}
    rate: fast
  acme.eu:
    url: {URL}
  acme:
    url: {URL}
  beta:
    off: [SMS_MT]
"""
    found = faults(text)
    assert [(line, at) for line, at, _ in found] == [(4, "acme.rate"), (7, ""), (9, "beta")]
    assert found[1][2] == "'acme' stands twice, first in line 2: leave one of them"
    assert redis_accounts().all() == []


def test_bytes_that_are_no_text_are_a_fault_with_their_line():
    made = account_file.plan(b"accounts:\n  \xff: 1\n", Path())
    assert [tuple(fault) for fault in made.faults] == [(2, "", "the file is no text in UTF-8")]
    assert (
        account_file.plan(b" " * (4 * 1024 * 1024 + 1), Path())
        .faults[0]
        .words.startswith("the file has more")
    )


# -- what is changed -------------------------------------------------------------------------------


def test_a_new_account_is_set_as_the_file_has_it(tmp_path):
    """Values as they are typed; secrets, keys and certificates from where the file says, each encrypted."""
    (tmp_path / "key.pem").write_text(CLIENT.key_pem)
    (tmp_path / "cert.pem").write_text(CLIENT.cert_pem)
    (tmp_path / "secret").write_text(SECRET + "\r\n")
    text = f"""\
accounts:
  acme:
    url: {{env: ACME_URL}}
    off: [SMS_MT, SUB]
    connect_timeout_s: 2.5
    max_transfers: 4
    rate: 50/s
    headers: {{X-Debug: yes, X-Version: 1.10, Authorization: {{env: ACME_TOKEN}}}}
    client_cert: {{file: cert.pem}}
    client_key: {{file: key.pem}}
    pinned_keys: {PIN}
    secret: {{file: secret}}
  quiet:
    off: ALL
"""
    with environment(ACME_URL="https://acme.example/?token=word", ACME_TOKEN="Bearer t"):
        changed = apply(text, tmp_path)
    account = stored()
    assert account.url == "https://acme.example/?token=word"
    assert account.off == {"SMS_MT", "SUB"}
    assert account.headers == {"X-Debug": "yes", "X-Version": "1.10"}
    assert (account.connect_timeout_s, account.max_transfers, account.rate) == (2.5, 4, "50/s")
    assert decrypt(account.client_key, "acme", "client_key") == CLIENT.key_pem
    assert decrypt(account.secrets[0].value, "acme", "secret") == SECRET
    assert stored("quiet").off == set(ORIGINS)
    assert changed["acme"]["secret"] == (None, "set")
    assert not any(word in str(changed) for word in ("Bearer", "word", SECRET, "PRIVATE"))


def test_an_account_becomes_what_the_file_says_and_others_stay():
    """A field that is left out goes back to its default, a secret among them; each change has its entry."""
    redis_accounts().set(whole())
    redis_accounts().set(Account(name="beta", url=URL))
    text = f"accounts:\n  acme:\n    url: {URL}\n    headers: {{x-one: 'no'}}\n"
    assert plan(text).left == ["beta"]
    changed = apply(text)
    account = stored()
    assert account == Account(name="acme", url=URL, headers={"x-one": "no"})
    assert changed["acme"]["rate"] == ("50/s", None)
    assert changed["acme"]["secret"] == ("set", None)
    assert changed["acme"]["headers.X-Two"] == ("set", None)
    assert stored("beta").url == URL
    entries = [entry for _, entry in waiting_journal.waiting(redis_accounts()._client, 10)]
    assert [(entry.action, entry.subject) for entry in entries] == [
        ("account.set", "acme"),
        ("secret.remove", "acme"),
    ]
    assert plan(text).to_do == []


def test_what_is_the_same_already_changes_nothing():
    """Secrets by reference are compared in clear; the certificate and its key as a pair."""
    redis_accounts().set(
        Account(
            **{
                **whole().model_dump(),
                "url": URL,
                "authorization": encrypt("Basic x", "acme", "authorization"),
            }
        )
    )
    text = f"""\
accounts:
  acme:
    url: {URL}
    mo_url: {{keep: true}}
    pass_url: {{keep: true}}
    off: SUB
    connect_timeout_s: 2.50
    answer_timeout_s: 3
    weight: 3.0
    rate: 50/s
    max_transfers: 4
    headers: {{x-one: {{keep: true}}, X-Two: {{env: TWO}}, Authorization: {{env: TOKEN}}}}
    ca_bundle: {{env: CERT}}
    client_cert: {{keep: true}}
    client_key: {{env: PRIVATE}}
    pinned_keys: [{PIN}]
    secret: {{env: SECRET}}
"""
    same = {
        "TWO": "{env: HOME}",
        "TOKEN": "Basic x",
        "CERT": CLIENT.cert_pem,
        "PRIVATE": CLIENT.key_pem,
        "SECRET": SECRET,
    }
    with environment(**same):
        assert apply(text) == {}
    with environment(**{**same, "SECRET": OTHER, "TOKEN": "Basic y"}):
        assert apply(text) == {
            "acme": {"authorization": ("set", "another one"), "secret": ("set", "another one")}
        }
    account = stored()
    assert [decrypt(secret.value, "acme", "secret") for secret in account.secrets] == [OTHER, SECRET]
    assert decrypt(account.authorization, "acme", "authorization") == "Basic y"
    with environment(**{**same, "SECRET": OTHER, "TOKEN": "Basic y", "PRIVATE": STRANGER.key_pem}):
        assert faults(text)[0][1] == "acme"  # not the key of that certificate


def test_a_stored_account_that_needs_more_than_the_file_has_is_a_fault():
    """Without a URL its own would stay, and another certificate would have the old key."""
    redis_accounts().set(whole())
    assert [words for _, _, words in faults("accounts:\n  acme: {off: ALL}\n")] == [
        "it has no URL, and the stored account has one: write url: {keep: true}"
    ]
    with environment(CERT=STRANGER.cert_pem):
        text = f"accounts:\n  acme: {{url: {URL}, client_cert: {{env: CERT}}, client_key: {{keep: true}}}}\n"
        assert "another certificate comes with its key" in faults(text)[0][2]


def test_a_row_that_cannot_be_read_is_set_anew():
    """Nothing of it can be kept."""
    redis_accounts()._client.hset(keys.ACCOUNTS, "acme", "no JSON")
    assert faults("accounts:\n  acme: {url: {keep: true}}\n")[0][2].startswith("there is nothing to keep")
    assert apply(f"accounts:\n  acme: {{url: {URL}}}\n") == {"acme": {"url": (None, URL)}}
    assert "acme is not here" not in account_file.export()


# -- there and back --------------------------------------------------------------------------------

URLS = st.sampled_from(
    [None, URL, f"{URL}?token=1", "https://user:word@acme.example/", "https://münchen.example/ü"]
)
TEXTS = (
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
)
FIELDS = {
    "mo_url": URLS,
    "pass_url": URLS,
    "off": st.frozensets(st.sampled_from(sorted(ORIGINS))),
    "connect_timeout_s": st.none() | st.floats(0.001, 60),
    "weight": st.floats(0.1, 100),
    "rate": st.sampled_from([None, "50/s", "30/min"]),
    "max_transfers": st.none() | st.integers(1, 10**6),
    "headers": st.dictionaries(st.sampled_from(["X-A", "X-B", "x-c"]), TEXTS),
    "ca_bundle": st.sampled_from([None, CLIENT.cert_pem, CLIENT.cert_pem.replace("\n", "\r\n")]),
    "pinned_keys": st.sampled_from([(), (PIN,)]),
}
NAMES = st.sampled_from(["acme", "acme.eu", "1", "1.0", "yes", "null", "a:b", "a+b@c", "2026-11-28", "0x1"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, st.fixed_dictionaries({"url": URLS.filter(bool)}, optional=FIELDS), max_size=4))
def test_an_export_that_is_applied_changes_nothing(given_accounts):
    """Whatever the accounts have."""
    redis_accounts()._client.delete(keys.ACCOUNTS)
    for name, fields in given_accounts.items():
        redis_accounts().set(Account(name=name, **fields))
    made = plan(account_file.export())
    assert made.faults == ([] if given_accounts else made.faults)
    assert [account.changed for account in made.accounts] == [{}] * len(given_accounts)
    assert made.left == []


def test_an_export_has_no_secret():
    """A whole account, with all that it has; what is kept is marked."""
    redis_accounts().set(whole())
    text = account_file.export()
    assert not any(word in text for word in (SECRET, "sealed:", "PRIVATE", "word", "token", "HOME", ": yes"))
    assert "    secret: {keep: true}\n" in text
    made = plan(text)
    assert made.faults == []
    assert made.to_do == []


def test_an_export_of_no_account_and_of_one_that_cannot_be_read_can_be_read_back():
    redis_accounts()._client.hset(keys.ACCOUNTS, "acme", "no JSON")
    text = account_file.export()
    assert "# acme is not here: its row cannot be read.\n" in text
    assert plan(text).faults == []


# -- the command -----------------------------------------------------------------------------------


def call(*args: str, text: str | None = None):
    return CliRunner().invoke(main, ["account", *args], input=text)


def test_the_command_shows_the_diff_and_does_nothing_without_a_yes(tmp_path):
    path = tmp_path / "accounts.yaml"
    path.write_text(f"accounts:\n  acme: {{url: {URL}, rate: 5/s}}\n")
    dry = call("apply", str(path), "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, f"acme (new)\n  url none -> {URL}\n  rate none -> 5/s\n")
    assert "1 new, 0 changed, 0 unchanged." in dry.stderr
    asked = call("apply", str(path))
    assert (asked.exit_code, redis_accounts().all()) == (2, [])
    assert "say --yes" in asked.stderr
    done = call("apply", str(path), "--yes", "--why", "ticket 812")
    assert done.exit_code == 0
    assert "1 account is set." in done.stderr
    assert stored().rate == "5/s"
    ((_, entry),) = waiting_journal.waiting(redis_accounts()._client, 10)
    assert (entry.action, entry.why) == ("account.set", "ticket 812")
    again = call("apply", str(path), "--json")
    assert json.loads(again.stdout) == {"account": "acme", "action": "unchanged", "changed": {}}


def test_the_command_says_each_fault_and_ends_with_2(tmp_path):
    path = tmp_path / "accounts.yaml"
    path.write_text('accounts:\n  acme: {url: x, rate: "\x1b[2J"}\n'.replace("\x1b", "\\e"))
    shown = call("apply", str(path), "--yes")
    assert shown.exit_code == 2
    assert shown.stderr.count(f"{path}:2: acme.") == 2
    assert "\x1b" not in shown.output
    assert shown.stderr.endswith(f"Error: {path} has 2 faults: nothing is changed.\n")
    as_json = call("apply", "-", "--json", text="accounts: []\n")
    assert json.loads(as_json.stdout)["line"] == 1
    assert as_json.exit_code == 2


def test_a_failure_midway_says_what_is_done(tmp_path, monkeypatch):
    path = tmp_path / "accounts.yaml"
    path.write_text(f"accounts:\n  a: {{url: {URL}}}\n  b: {{url: {URL}}}\n  c: {{url: {URL}}}\n")
    set_account = accounts.set_account

    def fail_at_b(change, **more):
        if change.account == "b":
            raise BrokerUnreachable("The broker does not answer.")
        return set_account(change, **more)

    monkeypatch.setattr(accounts, "set_account", fail_at_b)
    shown = call("apply", str(path), "--yes")
    assert shown.exit_code == 1
    assert "Account b: The broker does not answer. 1 account of 3 is set (a); 2 not." in shown.stderr
    assert [account.name for account in redis_accounts().all()] == ["a"]
    monkeypatch.undo()
    assert "0 changed, 1 unchanged." in call("apply", str(path), "--yes").stderr


def test_the_commands_write_and_read_a_file(tmp_path):
    redis_accounts().set(whole())
    path = tmp_path / "accounts.yaml"
    assert call("export", str(path)).exit_code == 0
    assert call("export").stdout == path.read_text()
    assert "0 new, 0 changed, 1 unchanged." in call("apply", str(path)).stderr


# -- how accounts differ ---------------------------------------------------------------------------


def test_a_difference_names_every_field_and_shows_no_secret():
    """As the journal has it of each change, and the diff of a file."""
    account = whole()
    changes = difference(None, account)
    assert changes.keys() >= {"url", "off", "weight", "headers.X-One", "client_key", "secrets", "pinned_keys"}
    assert not any(word in str(changes) for word in ("word", "token=1", "sealed", "BEGIN"))
    assert difference(account, account) == {}
    hidden = account.model_copy(
        update={"url": account.url.replace("token=1", "token=2"), "headers": {"X-One": "no"}}
    )
    assert difference(account, hidden) == {
        "url": ("https://acme.example/all?token=…", "another one"),
        "headers.X-One": ("set", "another one"),
        "headers.X-Two": ("set", None),
    }


def test_a_secret_of_somebody_elses_making_is_checked():
    """Without its value in the error."""
    redis_accounts().set(Account(name="acme", url=URL))
    with pytest.raises(Exception, match="24 to 64 bytes") as raised:
        rotate_secret("acme", 0, secret="whsec_short")
    assert "short" not in str(raised.value)
