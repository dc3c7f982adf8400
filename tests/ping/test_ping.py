"""``postbacks ping``: against receivers of every kind, what it prints, in words and as JSON, and its exit code."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import threading

import pytest
from click.testing import CliRunner
from events import examples
from helpers import black_hole, environment, set_account
from pinging import call, pinged

from postbacks import keys
from postbacks.accounts import secrets
from postbacks.catalogue import parse_event
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver, dead_port


@contextlib.contextmanager
def answering(raw):
    """A receiver that answers one request with these bytes and closes; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                connection.recv(65_536)
                connection.sendall(raw)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(60)


@pytest.mark.parametrize(
    ("lines", "verdict", "todo"),
    [
        (b"Content-Length:", "Content-Length is no number", "first postback there fails"),
        (b"Content-Length: 5 bytes", "Content-Length is no number", "first postback there fails"),
        (b"no header", "a line in the answer's header has no colon", "no answer with it ever counts"),
        (b"X-Nul: \0", "holds a NUL byte", "no answer with it ever counts"),
        (b"X-Cr: a\rb", "holds a carriage return", "no answer with it ever counts"),
    ],
)
def test_a_200_whose_header_cannot_be_read_says_which_line_is_to_blame(lines, verdict, todo):
    with answering(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n") as url:
        said = pinged(url)
    assert (said["outcome"], said["status"]) == ("broken_answer", None)
    assert verdict in said["verdict"]
    assert todo in said["advice"]


def test_a_header_that_is_too_large_is_not_one_that_cannot_be_read():
    with answering(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n") as url:
        said = pinged(url)
    assert said["outcome"] == "too_large"
    assert said["advice"] == "Answer with fewer or smaller headers and cookies."


def test_a_200_with_a_transfer_coding_that_nobody_knows_counts_and_is_noticed():
    with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: utf-8\r\n\r\n") as url:
        said = pinged(url, code=0)
    assert said["notes"] == ["its header gives its body no clear end, so the connection is not used again"]


def test_a_compressed_failure_in_another_charset_is_readable_and_moves_no_cursor():
    """A C1 control and a turn of direction, in latin-1 and in UTF-8, reach no terminal."""
    body = gzip.compress("außer Betrieb\x9b2J".encode("latin-1"))
    head = b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Type: text/html; charset=latin-1\r\n\r\n"
    with answering(head + body) as url:
        shown = call(url, "--json")
    assert json.loads(shown.stdout)["excerpt"] == "außer Betrieb\x9b2J"
    assert "\\u009b" in shown.stdout
    with answering(head + body) as url:
        shown = call(url)
    assert "Its answer begins: außer Betrieb\\x9b2J" in shown.stdout


# -- what is sent ----------------------------------------------------------------------------------


def test_a_ping_is_one_true_postback_that_says_it_is_a_test(broker):
    with Receiver() as receiver:
        said = pinged(receiver.url("/x"), code=0)
        (received,) = receiver.received
    assert received.headers["postback-test"] == "1"
    assert (received.attempt, received.sequence) == (1, 0)
    assert received.postback_id == said["id"]
    assert received.headers["content-type"] == "application/xml; charset=utf-8"
    event = parse_event(received.tags)
    assert (event.origin, event.code) == ("SUB", "N301")
    with broker.client() as client:
        assert client.dbsize() == 0


def test_a_ping_of_an_account_is_sent_as_its_postbacks_are(broker):
    key = secrets.new_key()
    with Receiver() as receiver, environment(POSTBACKS_SECRET_KEY=key):
        set_account(
            "acme", url=receiver.url("/all"), mo_url=receiver.url("/mo"), headers={"X-Team": "messaging"}
        )
        secret = CliRunner().invoke(main, ["account", "secret", "rotate", "acme"]).stdout.strip()
        shown = call("acme", POSTBACKS_SECRET_KEY=key)
        assert shown.exit_code == 0
        assert "account acme, SUB N301" in shown.stdout
        assert ", signed," in shown.stdout
        mo = call("acme", "--event", "-", "--json", text=json.dumps(examples()["SMS_MO", "N211"]))
        said = json.loads(mo.stdout)
        general, sms = receiver.received
        line = json.dumps({"headers": sms.headers, "body": sms.body.decode()})
        assert CliRunner().invoke(main, ["verify", "--secret", secret], input=line).exit_code == 0
    assert (general.path, sms.path) == ("/all", "/mo")
    assert general.headers["x-team"] == "messaging"
    assert (said["account"], said["origin"], said["signatures"]) == ("acme", "SMS_MO", 1)
    assert sms.tags == examples()["SMS_MO", "N211"]
    with broker.client() as client:
        of_the_account = {keys.ACCOUNTS, keys.ROUTES, keys.JOURNAL}
        assert {name.decode() for name in client.keys("*")} == of_the_account


def test_an_accounts_own_limit_judges_it(broker):
    del broker
    with Receiver(lambda _: Answer(delay_s=0.3)) as receiver:
        set_account("patient", url=receiver.url())
        set_account("hasty", url=receiver.url(), answer_timeout_s=0.2)
        assert pinged("patient", code=0)["limits"]["answer_s"] == 0.4
        assert pinged("hasty")["outcome"] == "answer_timeout"


@pytest.mark.parametrize(
    ("settings", "words", "end"),
    [
        ({"mo_url": "http://127.0.0.1:8080/"}, "has no URL for SUB", "dead until they are sent again"),
        ({"url": "http://127.0.0.1:8080/", "off": {"SUB"}}, "has switched off SUB", "skipped"),
    ],
)
def test_an_account_that_would_skip_it_is_1_and_says_so(broker, settings, words, end):
    del broker
    set_account("acme", **settings)
    shown = call("acme")
    assert shown.exit_code == 1
    assert f"Account acme {words}: its postbacks would be {end}. --event FILE" in shown.stderr


@pytest.mark.parametrize(
    ("args", "text", "words"),
    [
        (("nobody",), "", "There is no account 'nobody': make it"),
        (("no name",), "", "is no account name"),
        (("ftp://x.example/",), "", "no absolute http or https URL"),
        (("http://127.0.0.1/", "--event", "-"), "{}", "is not in the catalogue's form"),
        (("http://127.0.0.1/", "--event", "-"), "", "holds no event"),
    ],
)
def test_wrong_use_is_2_and_sends_nothing(broker, args, text, words):
    del broker
    shown = call(*args, text=text)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert words in shown.stderr


def test_a_secret_that_cannot_be_opened_is_2_and_sends_nothing(broker):
    del broker
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        with environment(POSTBACKS_SECRET_KEY=secrets.new_key()):
            CliRunner().invoke(main, ["account", "secret", "rotate", "acme"])
        shown = call("acme", POSTBACKS_SECRET_KEY=secrets.new_key())
        assert receiver.received == []
    assert shown.exit_code == 2
    assert "POSTBACKS_SECRET_KEY does not open" in shown.stderr


# -- what a receiver does --------------------------------------------------------------------------


def test_200_is_delivered_with_every_step_timed():
    with Receiver() as receiver:
        said = pinged(receiver.url(), code=0)
        shown = call(receiver.url())
    assert said["verdict"] == "answered 200: this postback would count as delivered"
    assert (said["advice"], said["notes"], said["keeps_alive"], said["tls"]) == ("", [], True, None)
    assert list(said["steps"]) == ["dns_ms", "tcp_ms", "request_ms", "answer_ms", "total_ms"]
    parts_ms = sum(took for name, took in said["steps"].items() if name != "total_ms")
    assert parts_ms == pytest.approx(said["steps"]["total_ms"], abs=20)
    assert said["address"] == f"127.0.0.1:{receiver.port}"
    lines = shown.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("  ok")] == [
        ["ok", "DNS"], ["ok", "TCP"], ["ok", "request"], ["ok", "answer"],
    ]  # fmt: skip
    assert lines[-1] == "Delivered: answered 200: this postback would count as delivered."
    assert shown.exit_code == 0
    assert "not through the queue, and not in the ledger" in shown.stderr


@pytest.mark.parametrize(
    ("answer", "verdict", "todo"),
    [
        (Answer(204), "answered 204: only 200 counts", "Answer 200, also where"),
        (Answer(201), "answered 201: only 200 counts", "Answer 200, also where"),
        (Answer(401), "answered 401: only 200 counts", "has it the account's secret, or must user"),
        (Answer(404), "answered 404: only 200 counts", "correct the URL"),
        (Answer(418), "answered 418: only 200 counts", "the receiver's log"),
        (Answer(503, b"down \x1b[2J"), "answered 503: only 200 counts", "The receiver failed"),
        (
            Answer(301, headers={"Location": "https://user:pw@new.example/in?key=hunter2"}),
            "answered 301, redirects to https://new.example/in?key=…: set that URL instead",
            "No redirect is ever followed.",
        ),
        (Answer(308, headers={"Location": "/in/"}), "answered 308, redirects to http://127.0.0.1:PORT/in/: set", ""),
        (Answer(302), "answered 302: only 200 counts", ""),
        (Answer(action="reset"), "the connection broke", "its log"),
        (Answer(action="close"), "a second connection, too, was closed|closed without an answer", "its log"),
        (Answer(action="garbage"), "the answer is no HTTP", "no HTTP"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_200_would_be_sent_again(answer, verdict, todo):
    with Receiver(lambda _: answer) as receiver:
        said = pinged(receiver.url())
        shown = call(receiver.url())
        verdicts = verdict.replace("PORT", str(receiver.port)).split("|")
    assert any(one in said["verdict"] for one in verdicts), said["verdict"]
    assert said["verdict"].endswith("; this postback would be sent again 5 times")
    assert todo in said["advice"]
    assert said["status"] == (answer.status if answer.action == "answer" else None)
    assert shown.exit_code == 1
    assert f"Not delivered: {said['verdict']}." in shown.stdout or "closed" in said["verdict"]
    assert "  !!  answer" in shown.stdout
    assert "hunter2" not in shown.output + json.dumps(said)
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize(
    ("resends", "words"), [("0", "dead at once"), ("1", "sent again once"), ("2", "2 times")]
)
def test_what_would_follow_is_what_the_settings_say(resends, words):
    with Receiver(lambda _: Answer(204)) as receiver:
        assert words in pinged(receiver.url(), POSTBACKS_MAX_RESENDS=resends)["verdict"]


def test_a_late_answer_is_waited_for_and_judged_by_the_limit():
    with Receiver(lambda _: Answer(delay_s=0.7)) as receiver:
        said = pinged(receiver.url())
    assert said["verdict"].startswith("answered 200 after 0.7 s: the limit is 0.4 s; this postback would be")
    assert (said["outcome"], said["status"]) == ("answer_timeout", 200)
    assert "Answer 200 first" in said["advice"]


def test_no_answer_ends_after_three_times_the_limit():
    with Receiver(lambda _: Answer(action="hang")) as receiver:
        said = pinged(receiver.url())
    assert said["verdict"].startswith("no answer within 1.2 s: the limit is 0.4 s")
    assert 1150 <= said["steps"]["total_ms"] < 8000


def test_an_answer_that_is_slow_but_in_time_is_noted():
    with Receiver(lambda _: Answer(delay_s=0.25)) as receiver:
        (near,) = pinged(receiver.url(), code=0)["notes"]
        (slow,) = pinged(
            receiver.url(), code=0, POSTBACKS_ANSWER_TIMEOUT_S="2", POSTBACKS_SLOW_AFTER_S="0.1"
        )["notes"]
    assert near.endswith(" s of the 0.4 s that it may take")
    assert slow.endswith(": an account slower than 0.1 s shares its room with failing ones")


@pytest.mark.parametrize(
    ("answer", "closes"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False),
    ],
)
def test_a_connection_that_is_closed_after_each_postback_is_noted(answer, closes):
    with answering(answer) as url:
        said = pinged(url, code=0)
    words = "answered 200 but the connection is closed after each postback: keep-alive would save"
    assert any(words in one for one in said["notes"]) is closes
    assert said["keeps_alive"] is not closes


def test_a_body_that_breaks_off_after_200_is_delivered_and_noted():
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc") as url:
        said = pinged(url, code=0)
    assert "its body was not read to the end" in said["notes"]


# -- where nobody is -------------------------------------------------------------------------------


def test_a_port_where_nothing_listens():
    with dead_port() as port:
        said = pinged(f"http://127.0.0.1:{port}/")
        shown = call(f"http://127.0.0.1:{port}/")
    assert said["outcome"] == "refused"
    assert said["verdict"].startswith("the connection was refused or the host cannot be reached; ")
    assert "Nothing listens there" in said["advice"]
    assert list(said["steps"]) == ["dns_ms", "total_ms"]
    assert "  !!  TCP" in shown.stdout


def test_a_host_that_takes_no_connection():
    with black_hole() as port:
        said = pinged(f"http://127.0.0.1:{port}/")
    assert said["verdict"].startswith("no connection within 1.2 s: the limit is 0.4 s")
    assert "firewall" in said["advice"]


def test_a_name_that_is_none():
    said = pinged("http://no-such-host.invalid/")
    assert said["outcome"] in {"dns", "connect_timeout"}
    assert said["steps"].keys() == {"total_ms"}


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("http://10.0.0.1/", {"POSTBACKS_ALLOWED_NETWORKS"}),
        ("http://169.254.169.254/latest/", {"POSTBACKS_ALLOWED_NETWORKS"}),
        ("https://127.0.0.1:25/", {"POSTBACKS_ALLOWED_PORTS"}),
        ("https://127.0.0.9:8080/", {"POSTBACKS_DENIED_NETWORKS"}),
    ],
)
def test_an_address_that_the_guard_refuses_is_not_reached(url, settings):
    """The advice names the setting that refuses it, and no other."""
    said = pinged(url, POSTBACKS_DENIED_NETWORKS="127.0.0.9/32")
    assert said["outcome"] == "blocked"
    assert said["verdict"].startswith("not allowed: ")
    assert set(re.findall(r"POSTBACKS_\w+", said["advice"])) == settings
    assert said["address"] is None
