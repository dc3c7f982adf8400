"""``account set``: limits, headers and TLS of an account; what cannot be is refused, what is not given stays."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from events import examples
from helpers import environment, set_account
from identities import Identity, authority

from postbacks import keys, send_postback
from postbacks.accounts import make_account, redis_accounts, secrets
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.errors import InvalidAccount

EVENT = examples()["SMS_MO", "N211"]
KEY = secrets.new_key()


def call(*args, text=""):
    """Call the command in this process."""
    return CliRunner().invoke(main, args, input=text, prog_name="postbacks")


@pytest.fixture(autouse=True)
def _key():
    with environment(POSTBACKS_SECRET_KEY=KEY):
        yield


@pytest.fixture
def acme(broker):
    """An account of that name."""
    del broker
    set_account("acme", url="http://127.0.0.1:8080/acme")


@pytest.fixture
def tls_files(tmp_path):
    """Paths of a certificate, its key and another key."""
    cert, key = authority().write(tmp_path, "client")
    _, other = Identity("other").write(tmp_path, "other")
    return {"cert": cert, "key": key, "other": other}


def test_an_update_keeps_what_is_not_given(acme, tls_files):
    del acme
    call("account", "secret", "rotate", "acme")
    call(
        "account", "set", "acme", "--answer-timeout", "3", "--header", "X-One: 1", "--ca-bundle",
        tls_files["cert"], "--pin", f"sha256//{'A' * 43}=",
    )  # fmt: skip
    before = redis_accounts().get("acme")
    assert call("account", "set", "acme", "--header", "X-Two: 2").exit_code == 0
    assert call("account", "set", "acme", "--url", "http://127.0.0.1:8080/new", "--off", "SUB").exit_code == 0
    after = redis_accounts().get("acme")
    assert after.secrets == before.secrets
    assert after.headers == {"X-One": "1", "X-Two": "2"}
    assert (after.answer_timeout_s, after.ca_bundle, after.pinned_keys) == (
        3,
        before.ca_bundle,
        before.pinned_keys,
    )
    assert (after.url, after.off) == ("http://127.0.0.1:8080/new", {"SUB"})
    call("account", "set", "acme", "--header", "x-one:", "--drop", "pins", "--drop", "ca-bundle")
    call("account", "set", "acme", "--drop", "answer-timeout")
    last = redis_accounts().get("acme")
    assert (last.headers, last.pinned_keys, last.ca_bundle, last.answer_timeout_s) == (
        {"X-Two": "2"},
        (),
        None,
        None,
    )
    assert last.off == {"SUB"}
    call("account", "set", "acme", "--drop", "headers", "--header", "X-Three: 3")
    assert redis_accounts().get("acme").headers == {"X-Three": "3"}


@pytest.mark.parametrize(
    "line",
    [
        "X-A: b\r\nX-B: c", "X-A: b\n", "X-A: b\rc", "X-A: b\x00", "X-A: ü", "X\r\nB: c", "X A: b", ": b", "X-A",
        "Postback-Id: 1", "postback-test: 1", "Webhook-Signature: v1,x", "Content-Type: text/plain",
        "content-length: 0", "Transfer-Encoding: chunked", "Host: internal", "Authorization: Bearer x\r\ny: z",
        "User-Agent: x", "Expect: 100-continue", "Connection: close", "Proxy-Authorization: x", "Cookie: a=b",
        f"X-A: {'b' * 5000}",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_header_that_would_change_the_request_is_refused(acme, line):
    del acme
    shown = call("account", "set", "acme", "--header", line)
    assert shown.exit_code == 2, shown.output
    assert "Error: " in shown.stderr
    assert redis_accounts().get("acme").headers == {}


def test_too_many_headers_are_refused_however_they_come_together(acme):
    del acme
    for number in range(32):
        assert call("account", "set", "acme", "--header", f"X-{number}: 1").exit_code == 0
    assert call("account", "set", "acme", "--header", "X-32: 1").exit_code == 2
    assert len(redis_accounts().get("acme").headers) == 32


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--connect-timeout", "0"), "connect_timeout_s"),
        (("--answer-timeout", "61"), "answer_timeout_s"),
        (("--answer-timeout", "nan"), "no number of seconds"),
        (("--pin", "sha256//short"), "no pinned key"),
        (("--client-cert", "cert"), "give both (--client-cert, --client-key)"),
        (("--client-cert", "cert", "--client-key", "other"), "not the key of the client certificate"),
        (("--client-cert", "key", "--client-key", "key"), "holds no PEM certificate"),
        (("--client-cert", "cert", "--client-key", "cert"), "holds no PEM private key"),
        (("--ca-bundle", "key"), "holds no PEM certificate"),
        (("--header", "X-A: b", "--header", "x-a: c"), "stands twice"),
        (("--off", "SUB"), "needs a URL"),
        ((), "needs a URL"),
    ],
)
def test_an_option_that_cannot_be_is_2_and_changes_nothing(acme, tls_files, args, words):
    del acme
    before = redis_accounts().get("acme")
    shown = call("account", "set", "acme", *(tls_files.get(arg, arg) for arg in args))
    assert shown.exit_code == 2, shown.output
    assert words in shown.stderr
    assert redis_accounts().get("acme") == before


def test_urls_and_headers_may_stand_in_files_or_on_standard_input(acme, tmp_path):
    """A header a line, as an editor or another program leaves them; nothing of them is shown."""
    del acme
    secret_url = "http://user:hunter2@127.0.0.1:8080/new"
    url, headers = tmp_path / "url", tmp_path / "headers"
    url.write_bytes(b"\xef\xbb\xbf" + secret_url.encode() + b"\r\n")
    headers.write_text("X-One: hunter2\n\nX-Two: @2\n")
    given = ("--url", f"@{url}", "--header", f"@{headers}", "--header", "X-Three: 3", "--mo-url", "-")
    shown = call("account", "set", "acme", *given, text="http://127.0.0.1:8080/mo\n")
    assert (shown.exit_code, "hunter2" in shown.output) == (0, False), shown.output
    account = redis_accounts().get("acme")
    assert (account.url, account.mo_url) == (secret_url, "http://127.0.0.1:8080/mo")
    assert account.headers == {"X-One": "hunter2", "X-Two": "@2", "X-Three": "3"}
    url.write_text("http://127.0.0.1:8080/new")
    text = "Authorization: Bearer hunter2\r\nX-One:"
    shown = call("account", "set", "acme", "--url", f"@{url}", "--header", "-", text=text)
    assert shown.exit_code == 0, shown.output
    account = redis_accounts().get("acme")
    assert secrets.decrypt(account.authorization, "acme", "authorization") == "Bearer hunter2"
    assert set(account.headers) == {"X-Two", "X-Three"}


@pytest.mark.parametrize(
    ("args", "text", "words"),
    [
        (("--url", "@missing"), "", "the file 'missing': No such file or directory."),
        (("--url", "@"), "", "the file '': No such file or directory."),
        (("--header", "@."), "", "the file '.': Is a directory."),
        (("--url", "@empty"), "", "the file 'empty' is empty."),
        (("--header", "@empty"), "", "the file 'empty' is empty."),
        (("--url", "-"), "\n \n", "standard input is empty."),
        (("--url", "-"), "http://a.example/\nhttp://b.example/", "standard input has 2 lines, not one."),
        (("--header", "@binary"), "", "the file 'binary' is no text."),
        (("--header", "@/dev/zero"), "", "the file '/dev/zero' has more than 65536 bytes."),
        (("--header", "-"), "X-A: hunter2\rX-B: c\n", "characters that a header cannot carry"),
        (("--header", "-"), "hunter2", "has no colon"),
        (("--url", "-", "--header", "-"), "x", "--url and --header both read standard input"),
        (("--header", "-", "--header", "-"), "A: b", "--header and --header both read standard input"),
        (("--header", "-", "--ca-bundle", "-"), "A: b", "both read standard input"),
    ],
)
def test_a_file_that_cannot_be_an_options_value_is_2_and_changes_nothing(
    acme, tmp_path, monkeypatch, args, text, words
):
    del acme
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n\r\n")
    (tmp_path / "binary").write_bytes(b"X-A: \xff\n")
    before = redis_accounts().get("acme")
    shown = call("account", "set", "acme", *args, text=text)
    assert (shown.exit_code, words in shown.stderr) == (2, True), shown.output
    assert "hunter2" not in shown.output
    assert redis_accounts().get("acme") == before


def test_other_commands_take_urls_and_secrets_from_files_as_well(broker, tmp_path):
    """`send --url`, `ping`, `verify --secret`; where standard input is something else already, it says so."""
    del broker
    event, url, secret = tmp_path / "event.json", tmp_path / "url", tmp_path / "secret"
    event.write_text(json.dumps(EVENT))
    secret.write_text("whsec_AAAA\n")
    with Receiver() as receiver:
        url.write_text(receiver.url("/?token=hunter2"))
        assert call("ping", f"@{url}").exit_code == 0
        assert call("ping", "-", text=receiver.url("/?token=hunter2")).exit_code == 0
        assert [post.path for post in receiver.received] == 2 * ["/?token=hunter2"]
        for command in (
            ("send", "acme", str(event), "--url", f"@{url}"),
            ("send", "acme", "-", "--url", f"@{url}"),
        ):
            shown = call(*command, text=json.dumps(EVENT))
            assert (shown.exit_code, "hunter2" in shown.output) == (0, False), shown.output
    for args, words in (
        (("send", "acme", "-", "--url", "-"), "both read standard input"),
        (("ping", "-", "--event", "-"), "both read standard input"),
        (("verify", "--secret", "-"), "standard input is the request"),
    ):
        shown = call(*args, text="x")
        assert (shown.exit_code, words in shown.stderr) == (2, True), shown.output
    shown = call("verify", "--secret", f"@{secret}", text="A: b\r\n\r\n")
    assert (shown.exit_code, "it is not signed" in shown.stdout) == (1, True), shown.output


def test_options_alone_make_no_account(broker):
    del broker
    shown = call("account", "set", "acme", "--answer-timeout", "3")
    assert (shown.exit_code, redis_accounts().get("acme")) == (2, None)


def test_headers_are_sent_and_each_account_has_its_own_limits(rig):
    with Receiver(lambda _: Answer(delay_s=2)) as slow:
        set_account("hasty", url=slow.url("/hasty"), answer_timeout_s=0.3, headers={"X-Team": "messaging"})
        set_account("patient", url=slow.url("/patient"))
        hasty, patient = (send_postback.delay(name, EVENT).id for name in ("hasty", "patient"))
        rig.tick()
        rig.deliver()
        got = slow.by_id()
    assert rig.record(patient).state == "delivered"
    (attempt,) = rig.record(hasty).attempts
    assert (rig.record(hasty).state, attempt.outcome) == ("parked", "answer_timeout")
    assert "0.3 s" in attempt.detail
    assert attempt.elapsed_ms < 9000
    assert got[hasty][0].headers["x-team"] == "messaging"
    assert "x-team" not in got[patient][0].headers


def test_a_header_twice_is_refused_in_whatever_case(broker):
    del broker
    with pytest.raises(InvalidAccount, match="stands twice"):
        make_account("acme", url="http://127.0.0.1:8080/", headers={"X-A": "1", "x-a": "2"})


def test_a_pace_is_set_shown_and_dropped_and_in_force_at_once(rig):
    """The scripts read it where it is written: weight, us between two POSTs, POSTs open at most. A program's
    change comes later.
    """
    set_account("acme", url="http://127.0.0.1:8080/acme")
    assert (
        call("account", "set", "acme", "--rate", "50/s", "--max-transfers", "4", "--weight", "3").exit_code
        == 0
    )
    assert rig.client.hgetall(keys.PACING) == {b"acme": b"3 20000 4"}
    lines = {" ".join(line.split()) for line in call("account", "show", "acme").output.splitlines()}
    assert {"weight 3", "rate 50/s", "open at most 4 POSTs"} <= lines
    call("account", "set", "acme", "--drop", "rate", "--drop", "weight")
    assert rig.client.hgetall(keys.PACING) == {b"acme": b"1 0 4"}
    set_account("acme", url="http://127.0.0.1:8080/acme", rate="30/min")  # by a store's own way
    send_postback.delay("acme", EVENT)
    rig.tick()
    assert rig.client.hgetall(keys.PACING) == {b"acme": b"1 2000000 0"}
    assert call("account", "set", "acme", "--rate", "30").exit_code == 2
    call("account", "remove", "acme", "--yes")
    assert not rig.client.exists(keys.PACING)
