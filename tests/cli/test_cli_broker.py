"""Refusals of the command line, and its words on a broker that cannot be used: a sentence, and nothing half-done."""

from __future__ import annotations

import json
import logging
import re

import pytest
from click.testing import CliRunner
from events import examples
from helpers import environment, set_account

from postbacks import keys
from postbacks.cli import main
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Receiver, dead_port

EVENT = json.dumps(examples()["SMS_MO", "N211"])
BAD_EVENT = json.dumps({**examples()["SMS_MO", "N211"], "TO": "+49"})
SET = ("account", "set", "acme", "--url", "https://acme.example/")
SEND = ("send", "acme", "-", "--url", "https://acme.example/")


@pytest.fixture(autouse=True)
def _levels():
    """Sending in this process quietens a logger; other tests want to hear it."""
    log = logging.getLogger("postbacks.client.sending")
    before = log.level
    yield
    log.setLevel(before)


def call(*args, url=None, text=EVENT):
    """Call the command in this process, on the suite's broker or another one."""
    other = {"POSTBACKS_BROKER_URL": url, "POSTBACKS_BROKER_TIMEOUT_S": "0.5"} if url else {}
    with environment(**other):
        return CliRunner().invoke(main, args, input=text, prog_name="postbacks")


def refused(shown, *words):
    """Tell whether a command was refused, in one sentence that has these words."""
    assert shown.exit_code == 2, shown.output
    assert shown.stdout == ""
    assert all(word in shown.stderr for word in words), shown.stderr
    assert shown.stderr.count("\n") == 1
    assert shown.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    "args",
    [
        SET, SEND, ("send", "acme", "-"), ("account", "show", "acme"), ("account", "list"),
        ("account", "remove", "acme", "--yes"), ("show", "x"), ("list",), ("resend", "x"), ("cancel", "x"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_broker_that_is_down_is_2_and_a_sentence_that_names_what_to_do(args):
    with dead_port() as port:
        shown = call(*args, url=f"redis://:secret@127.0.0.1:{port}/0")
    refused(shown, "does not answer", "start it or correct POSTBACKS_BROKER_URL")
    assert "secret" not in shown.stderr


@pytest.mark.parametrize("args", [SET, SEND, ("list",)], ids=" ".join)
def test_a_broker_that_is_something_else_is_2(args):
    with Receiver() as receiver:
        refused(call(*args, url=f"redis://127.0.0.1:{receiver.port}/0"), "The broker at ")


def test_a_password_that_is_wanted_or_wrong_is_named_and_never_shown():
    with EmbeddedBroker() as locked:
        with locked.client() as client:
            client.config_set("requirepass", "secret")
        refused(call("list", url=locked.url), "wants a password")
        refused(call("list", url=locked.url.replace("//", "//:wrong@")), "refused the password", ":***@")


def test_a_full_broker_takes_nothing_and_says_what_to_do():
    with EmbeddedBroker(config={"maxmemory": "1mb"}) as full:
        refused(call(*SET, url=full.url), "is full (maxmemory reached)")


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "nonsense", "redis://127.0.0.1:port/"])
def test_a_broker_url_that_is_none_is_2(url):
    refused(call("list", url=url), "POSTBACKS_BROKER_URL")


@pytest.mark.parametrize("args", [SET, SEND], ids=" ".join)
def test_a_broker_that_evicts_takes_nothing(args):
    with EmbeddedBroker(config={"maxmemory-policy": "allkeys-lru"}) as evicting:
        refused(call(*args, url=evicting.url), "allkeys-lru", "set maxmemory-policy noeviction")
        with evicting.client() as client:
            assert client.dbsize() == 0


@pytest.mark.parametrize("args", [SET, SEND, ("account", "remove", "acme", "--yes")], ids=" ".join)
def test_a_replica_is_refused_with_the_advice_to_use_the_primary(broker, args):
    with EmbeddedBroker(config={"replicaof": f"127.0.0.1 {broker.port}"}) as replica:
        refused(call(*args, url=replica.url), "read-only", "the primary")


@pytest.mark.parametrize(
    ("args", "text", "words"),
    [
        (("nobody", "-"), EVENT, "There is no account 'nobody': make it (postbacks account set nobody"),
        (("no name", "-"), EVENT, "'no name' is no account name"),
        (("acme", "-"), BAD_EVENT, "event SMS_MO N211 is not in the catalogue's form: TO: must be"),
        (("acme", "-"), f"{EVENT}\n{EVENT}\n{BAD_EVENT}", "standard input: line 3: event SMS_MO N211"),
        (("acme", "-"), "{", "standard input is no JSON: line 1, column 2"),
        (("acme", "-"), "", "holds no event"),
        (("acme", "-", "--url", "acme.example/x"), EVENT, "is no absolute http or https URL"),
        (("acme", "-", "--url", "https://x.example/" + "a" * 2048), EVENT, "at most 2048 are allowed"),
    ],
)
def test_what_send_refuses_sends_nothing(broker, args, text, words):
    set_account("acme", url="https://acme.example/")
    refused(call("send", *args, text=text), words)
    with broker.client() as client:
        assert client.llen(keys.QUEUE) == 0


@pytest.mark.parametrize(
    ("args", "text", "words"),
    [
        (("--id", "one"), f"{EVENT}\n{EVENT}", "this file holds 2 events"),
        (("--id", "two words"), EVENT, "printable ASCII"),
        (("--wait", "nan"), EVENT, "no number of seconds"),
        (("--wait", "soon"), EVENT, "is not a valid float"),
    ],
)
def test_wrong_use_of_send_sends_nothing(broker, args, text, words):
    set_account("acme", url="https://acme.example/")
    shown = call("send", "acme", "-", *args, text=text)
    assert shown.exit_code == 2
    assert words in shown.stderr
    with broker.client() as client:
        assert client.llen(keys.QUEUE) == 0


def test_nobody_is_waited_for_longer_than_asked_and_a_missing_worker_is_named(broker):
    del broker
    shown = call(*SEND, "--wait", "0.2")
    assert shown.exit_code == 1
    one = shown.stdout.strip()
    assert f"{one} not taken in yet" in shown.stderr
    assert "0 of 1 delivered within 0.2 s. None has been taken in: is a worker running" in shown.stderr


def test_what_has_not_been_taken_in_is_not_shown_yet(broker):
    del broker
    one = call(*SEND).stdout.strip()
    shown = call("show", one)
    assert shown.exit_code == 1
    assert f"The ledger has no postback {one}: it is not taken in yet" in shown.stderr


def test_what_is_cancelled_before_it_is_taken_in_is_never_sent(rig):
    one = call(*SEND).stdout.strip()
    shown = call("cancel", one)
    assert shown.exit_code == 0
    assert f"The ledger has no postback {one} yet" in shown.stderr
    rig.tick()
    assert rig.deliver() == 0
    assert rig.record(one).state == "cancelled"


def test_a_broker_without_an_append_only_file_is_warned_of_once():
    with EmbeddedBroker(config={"appendonly": "no"}) as careless:
        shown = call(*SET, url=careless.url)
        assert shown.exit_code == 0
        assert shown.stderr.count("Warning: ") == 1
        assert "appendonly yes" in shown.stderr


def test_sending_to_a_broker_without_an_append_only_file_warns_once(caplog):
    """The line of the log that an application gets says the same; the command's own sentence stands alone."""
    with EmbeddedBroker(config={"appendonly": "no"}) as careless:
        shown = call(*SEND, url=careless.url)
        assert shown.exit_code == 0
        assert shown.stderr.count("appendonly yes") == 1
    assert "broker.unsafe" not in caplog.text


# -- accounts --------------------------------------------------------------------------------------


def test_an_account_is_set_shown_listed_and_removed(broker):
    del broker
    shown = call(
        "account", "set", "acme", "--url", "https://user:secret@acme.example/all?key=hidden", "--mo-url",
        "https://acme.example/mo", "--off", "SMS_MT", "--off", "MMS_MT",
    )  # fmt: skip
    no_recorder = "(journal: written to the workers' log alone, as no recorder works)\n"
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "", f"Account acme is set.\n{no_recorder}")
    wanted = {
        "name": "acme",
        "url": "https://acme.example/all?key=…",
        "mo_url": "https://acme.example/mo",
        "pass_url": None,
        "off": ["MMS_MT", "SMS_MT"],
    }
    shown = json.loads(call("account", "show", "acme", "--json").stdout)
    assert shown | wanted == shown
    assert [json.loads(line) for line in call("account", "list", "--json").stdout.splitlines()] == [shown]
    for text in (call("account", "show", "acme").stdout, call("account", "list").stdout):
        assert "https://acme.example/mo" in text
        assert "MMS_MT, SMS_MT" in text
        assert "secret" not in text
        assert "hidden" not in text
    assert call("account", "remove", "acme", "--yes").exit_code == 0
    assert call("account", "list").stdout == ""


def test_an_account_is_paused_shown_listed_and_resumed(broker):
    del broker
    for name in ("acme", "globex"):
        call("account", "set", name, "--url", "https://x.example/")
    shown = call("account", "pause", "acme", "--until", "2h", "--reason", "they move")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert re.search(
        r"Account acme is paused until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S+: nothing of it waits\. "
        r"postbacks account resume acme lets it go on before\.\n",
        shown.stderr,
    )
    assert re.search(
        r"\npaused +since .* by \w+, until .* \(they move\); nothing of it waits\n",
        call("account", "show", "acme").stdout,
    )
    pause = json.loads(call("account", "show", "acme", "--json").stdout)["paused"]
    assert (pause["reason"], pause["waiting"], pause["oldest"]) == ("they move", 0, None)
    paused = {
        line["name"]: line["paused"]
        for line in map(json.loads, call("account", "list", "--json").stdout.splitlines())
    }
    assert paused == {"acme": pause, "globex": None}
    assert "Paused (postbacks account list --paused says more): acme." in call("account", "list").stderr
    assert re.search(r"\nacme +\S+ .* they move ", call("account", "list", "--paused").stdout)
    assert json.loads(call("account", "list", "--paused", "--json").stdout) == {
        "name": "acme",
        "paused": pause,
    }
    for end in ("yesterday", "soon"):
        shown = call("account", "pause", "globex", "--until", end)
        assert (shown.exit_code, "try 2h, 18:00, tomorrow" in shown.stderr) == (2, True)
    assert call("account", "resume", "acme").stderr.startswith("Account acme goes on: nothing of it waits.\n")
    assert call("account", "resume", "acme").stderr == "Account acme is not paused.\n"
    assert call("account", "list", "--paused").stderr == "No account is paused.\n"


def test_setting_an_account_again_replaces_its_urls_and_says_what_is_gone(broker):
    del broker
    call("account", "set", "acme", "--url", "https://old.example/", "--off", "SUB")
    shown = call("account", "set", "acme", "--mo-url", "https://new.example/")
    assert "Account acme is replaced." in shown.stderr
    assert "No longer set: Postback URL https://old.example/." in shown.stderr
    assert "Switched on again: SUB." in shown.stderr


@pytest.mark.parametrize("command", ["show", "remove", "pause", "resume"])
def test_an_account_that_is_not_there_is_1(broker, command):
    del broker
    shown = call("account", command, "nobody")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "There is no account 'nobody'" in shown.stderr


@pytest.mark.parametrize(
    ("settings", "words", "end"),
    [
        ({"url": "https://x.example/", "off": ["SMS_MO"]}, "has switched off SMS_MO", "skipped"),
        (
            {"mo_url": None, "pass_url": "https://x.example/"},
            "has no URL for SMS_MO",
            "dead until they are sent again",
        ),
    ],
)
def test_send_says_what_will_not_be_sent(broker, settings, words, end):
    del broker
    set_account("acme", **settings)
    shown = call("send", "acme", "-")
    assert shown.exit_code == 0
    assert f"Warning: account acme {words}: its postbacks will be {end}." in shown.stderr
