"""Text from outside, in every form in which a command prints it: nothing reaches a terminal that it would obey."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from harmless import EVIL, is_harmless
from helpers import Rig, set_account

from postbacks import keys, send_postback
from postbacks.catalogue import SmsReceived
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver

pytestmark = pytest.mark.usefixtures("forked")

POSTBACKS = str(Path(sys.executable).with_name("postbacks"))
#: The same without what XML forbids and what no UTF-8 has.
WORDS = "".join(c for c in EVIL if c not in "\x1b\x00\ud800") + "stop"


@pytest.fixture
def postback_id(rig: Rig):
    """A postback whose words are evil, of which an attempt has failed with an evil answer, and whose record is forged."""
    answer = Answer(503, WORDS.encode() + b"\x1b[31m\x9b2J", {"content-type": "text/plain; charset=utf-8"})
    with Receiver(lambda _: answer) as receiver:
        set_account("acme", url=receiver.url("/"))
        event = SmsReceived(from_="15552312102", to="86717", text=WORDS, received="2026-11-24T10:00:00Z")
        one = send_postback.delay("acme", event).id
        rig.tick()
        rig.deliver()
    forged = {
        "group": f"mo{EVIL}",
        "origin": f"SMS_MO{EVIL}",
        "reason": f"because{EVIL}",
        "url": f"http://a/{EVIL}",
    }
    rig.client.hset(
        keys.record(one),
        mapping={name: value.encode("utf-8", "surrogatepass") for name, value in forged.items()},
    )
    rig.client.hset("postbacks:backlog", f"name{EVIL}".encode("utf-8", "surrogatepass"), 3)
    return one


def shown(*args: str, text: bytes = b"") -> str:
    """Return the output of a command, to stdout and stderr."""
    return CliRunner().invoke(main, list(args), input=text, prog_name="postbacks").output


def test_what_commands_print_is_harmless_in_words_and_as_json(postback_id, rig):
    """Tables, records, errors, JSON lines; JSON reads back as what was given."""
    event = json.dumps({"ORIGIN": "SMS_MO", "CODE": EVIL, "TEXT": EVIL}).encode()
    revealed = ("show", postback_id, "--json", "--reveal", "--why", f"ticket{EVIL}")
    calls = [
        ("show", postback_id), ("show", postback_id, "--json"), revealed, ("list",), ("list", "--json"), ("doctor",),
        ("doctor", "--json"), ("health",), ("health", "--json"), ("account", "show", "acme"),
        ("account", "show", f"x{EVIL}"), ("account", "set", f"x{EVIL}", "--url", "http://a/"),
        ("account", "set", "x", "--url", f"http://a/{EVIL}"), ("account", "set", "x", "--rate", EVIL),
        ("account", "set", "x", "--off", EVIL), ("account", "remove", f"x{EVIL}", "--yes"), ("show", f"x{EVIL}"),
        (EVIL,), ("send", "acme", f"/nowhere{EVIL.replace(chr(0), '')}"), ("schema", EVIL, EVIL), ("verify", "--secret", EVIL),
        ("journal", "--by", EVIL), ("account", "apply", f"nowhere{EVIL}"),
    ]  # fmt: skip
    said = {args: shown(*args) for args in calls} | {("send",): shown("send", "acme", "-", text=event)}
    assert {args: text for args, text in said.items() if not is_harmless(text)} == {}
    assert {args: text for args, text in said.items() if "should not happen" in text} == {}
    told = json.loads(said[revealed].splitlines()[0])  # stderr says that it is in the log alone
    assert told["reason"].startswith("because\x1b[2J\x9b31m\u202e")
    assert told["attempts"][0]["excerpt"].startswith(WORDS[:6])
    rig.client.zadd(keys.DONE, {postback_id: 1})
    for args in (("list",), ("list", "--json"), ("list", "--dead")):
        assert is_harmless(shown(*args))


def test_a_document_is_itself_in_a_pipe_and_harmless_on_a_terminal(postback_id, broker, rig):
    """The same document to a parser, with references for what a terminal would obey."""
    env = {**os.environ, "POSTBACKS_BROKER_URL": broker.url}
    command = [POSTBACKS, "show", postback_id, "--xml", "--reveal", "--why", "a test"]
    piped = subprocess.run(command, env=env, capture_output=True, timeout=90, check=True).stdout
    assert piped == rig.record(postback_id).xml
    assert not is_harmless(piped.decode())
    parent, child = pty.openpty()
    with subprocess.Popen(command, env=env, stdout=child, stderr=child, stdin=child) as process:
        os.close(child)
        seen = b""
        try:
            while part := os.read(parent, 4096):
                seen += part
        except OSError:  # the other end is closed
            pass
        assert process.wait(90) == 0
    os.close(parent)
    text = seen.decode().replace("\r\n", "\n")
    assert is_harmless(text)
    assert "&#x9b;31m&#x202e;" in text


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_the_receiver_prints_whatever_comes_harmlessly(form):
    """Path, headers, tags and body of a request are a stranger's; an attempt of 5,000 digits ends nothing."""
    tag = "".join(c for c in WORDS if c != "\r")
    bodies = [
        f"<POSTBACK><ORIGIN>SMS_MO</ORIGIN><CODE>N211</CODE><TEXT>{tag}</TEXT></POSTBACK>".encode(),
        EVIL.encode("utf-8", "surrogatepass"),
    ]
    command = [POSTBACKS, "receive", "--port", "0", *form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as receive:
        url = re.search(rb"http://\S+", receive.stderr.readline())[0].decode()
        for body in bodies:
            request = urllib.request.Request(url + "x", body)
            request.add_header("Postback-Id", "\x9b31m\x85")
            request.add_header("Postback-Attempt", "9" * 5000)
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
        out = b""
        while b'"fault"' not in out and b"no postback" not in out:
            out += receive.stdout.readline()
        receive.terminate()
        rest, err = receive.communicate(timeout=60)
        out += rest
    assert receive.returncode == 0, err
    assert is_harmless(out.decode())
    assert b"2 received." in err
    if form:
        first = json.loads(out.splitlines()[0])
        assert first["tags"]["TEXT"] == tag
        assert first["id"] == "\x9b31m\x85"


#: URLs that cannot be one, as a shell may hand them over.
NO_URLS = (
    "", "http://", "http:///", "http://[", "http://[::1", "http://[::1]x", "http://a:b:c/", "http://a:99999/", "http://a:٣/",
    "http://\udc80/", "http://a/\udc80", "http://u\udc80:p@a/", "http://a\x1b/", "http://xn--/", "http://%ff/",
    f"http://{'ß' * 300}/", f"http://a/{'b' * 3000}", "ftp://a/", "javascript:alert(1)", "//a", "http://a..b/", "http://1.2.3.4.5/",
    "http://a\u202e/", "@/nowhere", "\udc80", "①②⑦.0.0.1",
)  # fmt: skip


def test_a_url_that_cannot_be_one_gets_a_sentence(rig, tmp_path):
    """In every command that takes one, and where one is given as an account's name; nothing is stored."""
    set_account("acme", url="http://127.0.0.1:8080/")
    event = tmp_path / "event.json"
    event.write_text(
        json.dumps({"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "17041"})
    )
    for url in NO_URLS:
        for args in (
            ("account", "set", "x", "--url", url), ("account", "set", "x", "--mo-url", url), ("ping", url),
            ("account", "set", url, "--url", "http://a/"), ("send", "acme", str(event), "--url", url),
            ("account", "show", url), ("account", "remove", url, "--yes"), ("account", "secret", "rotate", url),
            ("account", "secret", "remove", url), ("resend", "--all-dead", "--account", url, "--yes"),
        ):  # fmt: skip
            done = CliRunner().invoke(main, args, prog_name="postbacks")
            assert done.exit_code in ({0, 2} if args[0] == "resend" else {1, 2}), (args, done.output)
            assert "should not happen" not in done.output, (args, done.output)
            assert is_harmless(done.output), args
    assert rig.client.hkeys("postbacks:accounts") in ([b"acme"], [])
