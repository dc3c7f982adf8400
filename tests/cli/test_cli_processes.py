"""The commands that stay: up and receive; how they begin, and that they end whole."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import click
import pytest
from events import examples
from helpers import eventually, free_port

from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.cli.up import _web
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.settings import Settings

POSTBACKS = str(Path(sys.executable).with_name("postbacks"))
EVENT = examples()["MMS_MO", "N401"]


@contextmanager
def started(*args, cwd=None):
    """A command that stays, killed should the test not have ended it."""
    # Unbuffered: a selector does not see what Python has read ahead.
    process = subprocess.Popen(
        [POSTBACKS, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, cwd=cwd
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def line_of(stream, timeout_s=90):
    """The next line, or a failure when it does not come."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        assert selector.select(timeout_s), f"no line in {timeout_s} s"
    return stream.readline().decode()


def ended(process, number, timeout_s=90):
    """Send a signal; the exit code and what was still said."""
    process.send_signal(number)
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out.decode(), err.decode()


def descendants(pid):
    """The processes that a process has started, and theirs."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}
    found, fresh = set(), {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def alive(pids):
    """Return the processes that still run; a zombie that nobody has reaped does not."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    return {int(pid) for pid, stat in map(str.split, listed.splitlines()) if not stat.startswith("Z")} & pids


# -- up --------------------------------------------------------------------------------------------


def test_up_serves_from_an_empty_directory_and_ctrl_c_leaves_no_process_behind(tmp_path):
    data = tmp_path / "data"
    with (
        Receiver() as receiver,
        started("up", "--port", str(free_port()), "--data", str(data), "--dev", "--json", cwd=tmp_path) as up,
    ):
        said = json.loads(line_of(up.stdout))
        url = said["broker_url"]
        password = (data / "broker.password").read_text().strip()
        assert url == f"redis://:{password}@127.0.0.1:{said['broker_url'].rpartition(':')[2]}"
        shown = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
        assert "celery" in shown
        assert password not in shown
        refused = subprocess.run(
            [POSTBACKS, "list"],
            env={**os.environ, "POSTBACKS_BROKER_URL": url.replace(f":{password}@", "")},
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert refused.returncode == 2
        assert "wants a password" in refused.stderr
        done = subprocess.run(
            [POSTBACKS, "send", "acme", "-", "--url", receiver.url("/x"), "--wait", "20"],
            env={**os.environ, "POSTBACKS_BROKER_URL": url, "POSTBACKS_ALLOWED_NETWORKS": ""},
            input=json.dumps(EVENT), capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert receiver.received[0].body == render(parse_event(EVENT))
        with urllib.request.urlopen(said["web_url"], timeout=60) as page:
            text = page.read().decode()
        assert "The last hour" in text
        assert "No login is set" in text
        pids = descendants(up.pid)
        assert len(pids) >= 4
        code, _, err = ended(up, signal.SIGINT)
    assert code == 0
    assert err.splitlines()[-1] == "Stopped."
    eventually(lambda: not alive(pids), what="the end of all processes")
    config = (data / "broker.conf").read_text()
    for line in ('appendonly "yes"', 'appendfsync "always"', 'maxmemory-policy "noeviction"'):
        assert line in config
    assert {"worker1.log", "beat1.log", "recorder.log", "broker.log", "web.log"} <= {
        path.name for path in data.iterdir()
    }
    assert open_to_others(data) == []
    # the recorder ends last, and copies what has gathered
    assert said["history_url"] == f"sqlite:///{data}/history.db"
    with closing(sqlite3.connect(data / "history.db")) as database:
        assert database.execute("SELECT account, state FROM postbacks_readable").fetchall() == [
            ("acme", "delivered")
        ]


def test_the_dashboard_of_up_wants_a_token_that_this_user_alone_can_read(tmp_path):
    data = tmp_path / "data"
    web = _web(Settings(), data, free_port(), dev=False)
    with web.listening, _web(Settings(), data, None, dev=False).listening:
        assert (data / "web.token").read_text().strip() == web.token
        assert len(web.token) >= 32
        assert open_to_others(data) == []
        assert web.url in web.words
        assert web.token not in web.words
        again = _web(Settings(), data, None, dev=False)
        assert again.token == web.token
        again.listening.close()
        with pytest.raises(click.UsageError, match="--web-port"):
            _web(Settings(), data, web.listening.getsockname()[1], dev=False)
        for free in (
            _web(Settings(), data, None, dev=True),
            _web(Settings(web_token="t" * 16), data, None, dev=False),
        ):
            free.listening.close()
            assert free.token == ""


def open_to_others(directory: Path) -> list[str]:
    """A directory, and what is in it, as far as another user may do anything with it."""
    return [str(path) for path in (directory, *directory.rglob("*")) if path.stat().st_mode & 0o077]


def test_up_says_what_to_type_next_and_ends_all_when_a_worker_dies(tmp_path):
    with started("up", "--port", str(free_port()), "--data", "here", "--dev", cwd=tmp_path) as up:
        export = r" +export POSTBACKS_BROKER_URL=redis://:[0-9a-f]{48}@127\.0\.0\.1:\d+/0\n"
        assert re.fullmatch(export, line_of(up.stdout))
        history = f" +export POSTBACKS_HISTORY_URL=sqlite:///{re.escape(str(tmp_path))}/here/history.db\n"
        assert re.fullmatch(history, line_of(up.stdout))
        pids = descendants(up.pid)
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True
        ).stdout
        worker = next(
            int(line.split()[0])
            for line in listed.splitlines()
            if "celery" in line and " worker " in line and int(line.split()[0]) in pids
        )
        os.kill(worker, signal.SIGKILL)
        _, err = up.communicate(timeout=60)
    assert up.returncode == 1
    err = err.decode()
    assert "postbacks account set acme --url http://127.0.0.1:8080/postbacks" in err
    assert (
        err.splitlines()[-1]
        == "Error: Worker1 has ended by itself; here/worker1.log says why. All is stopped."
    )
    eventually(lambda: not alive(pids), what="the end of all processes")


def test_up_on_a_port_that_is_in_use_is_2(tmp_path):
    with Receiver() as other:
        done = subprocess.run(
            [POSTBACKS, "up", "--port", str(other.port), "--data", str(tmp_path)],
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"Error: Port {other.port} of 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr


# -- receive ---------------------------------------------------------------------------------------


def post(url, body, **headers):
    """POST as a worker does; the status."""
    request = urllib.request.Request(
        url, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.status


def test_receive_fails_first_then_answers_and_prints_a_json_line_for_each():
    document = render(parse_event(EVENT))
    with started("receive", "--port", "0", "--fail-first", "2", "--status", "201", "--json") as receive:
        said = line_of(receive.stderr)
        assert "answers 500 to the first 2 POSTs of each postback, then 201" in said
        url = re.search(r"http://\S+", said)[0]
        statuses = [
            post(f"{url}mo", document, Postback_Id="one", Postback_Attempt=str(number))
            for number in (1, 2, 3)
        ]
        assert statuses == [500, 500, 201]
        lines = [json.loads(line_of(receive.stdout)) for _ in statuses]
        code, _, err = ended(receive, signal.SIGINT)
    assert code == 0
    assert err == "3 received.\n"
    assert [(line["id"], line["attempt"], line["answered"]) for line in lines] == [
        ("one", 1, 500),
        ("one", 2, 500),
        ("one", 3, 201),
    ]
    assert lines[0]["tags"] == EVENT
    assert lines[0]["body"].encode() == document
    assert lines[0]["headers"]["postback-id"] == "one"
    assert lines[0]["path"] == "/mo"


def test_receive_prints_every_tag_and_survives_what_is_no_postback():
    document = render(parse_event({**EVENT, "SUBJECT": "red\x9b31m"}))
    with started("receive", "--port", "0", "--delay", "0.1") as receive:
        url = re.search(r"http://\S+", line_of(receive.stderr))[0]
        began_s = time.monotonic()
        assert post(url, document, Postback_Id="one", Postback_Attempt="first") == 200
        assert time.monotonic() - began_s >= 0.1
        assert post(url, b"<POSTBACK>") == 200
        with urllib.request.urlopen(f"{url}favicon", timeout=60) as answer:
            assert answer.status == 200
        printed = ""
        while "GET /favicon" not in printed:  # it prints after it has answered
            printed += line_of(receive.stdout)
        code, rest, _ = ended(receive, signal.SIGTERM)
    out = printed + rest
    assert code == 0
    for tag, value in EVENT.items():
        if tag not in {"ORIGIN", "CODE", "SUBJECT", "CONTENT"}:
            assert re.search(rf"^ +{tag} +{re.escape(str(value))}$", out, re.MULTILINE)
    assert out.count("CONTENT FILE") == 2
    assert "red\\x9b31m" in out
    assert out.count("no postback") == 2
    assert "GET /favicon" in out


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_receive_forwards_and_shows_both_sides_and_ends_though_a_server_hangs(as_json):
    document = render(parse_event(EVENT))
    answers = {
        "/mine?a=1": Answer(500, b"KeyError: 'FROM' \x1b[31m\nin line 2", {"Content-Type": "text/plain"}),
        "/mine?hang": Answer(action="hang"),
    }
    form = ["--json"] if as_json else []
    with (
        Receiver(lambda received: answers[received.path]) as server,
        started("receive", "--port", "0", "--forward-to", server.url("/mine"), *form) as receive,
    ):
        said = line_of(receive.stderr)
        assert f"answers as {server.url('/mine')} does" in said
        url = re.search(r"http://\S+", said)[0]
        assert post(f"{url}mo?a=1", document, Postback_Id="one", Postback_Attempt="1") == 500
        out = ""
        while "KeyError" not in out:
            out += line_of(receive.stdout)
        (forwarded,) = server.received
        assert forwarded.body == document
        hanging = urllib.parse.urlsplit(url)
        with socket.create_connection((hanging.hostname, hanging.port)) as sender:
            sender.sendall(b"POST /?hang HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            server.wait_for(2, timeout_s=60)
            server.stop()
            while "/?hang" not in out:
                out += line_of(receive.stdout)
            assert sender.recv(20).startswith(b"HTTP/1.1 502 ")
            code, rest, err = ended(receive, signal.SIGINT)
    assert (code, err) == (0, "2 received.\n")
    if as_json:
        first, second = map(json.loads, (out + rest).splitlines())
        assert (first["answered"], second["answered"]) == (500, 502)
        assert first["forwarded"].pop("elapsed_ms") > 0
        assert first["forwarded"] == {
            "to": server.url("/mine"),
            "problem": None,
            "excerpt": "KeyError: 'FROM' \x1b[31m",
        }
        assert second["forwarded"]["problem"].startswith("the connection was ")
    else:
        assert re.search(r"MMS_MO N401  attempt 1  POST /mo\?a=1  answered 500\n", out)
        assert re.search(
            rf"^ +forwarded to +{server.url('/mine')}: answered 500 in \d+ ms: KeyError: 'FROM' \\x1b\[31m$",
            out,
            re.MULTILINE,
        )
        assert re.search(r"/mine: the connection was .*, so the answer is 502$", out + rest, re.MULTILINE)


def test_receive_on_a_port_that_is_in_use_is_2():
    with Receiver() as other, started("receive", "--port", str(other.port)) as receive:
        _, err = receive.communicate(timeout=60)
    assert receive.returncode == 2
    assert f"Error: Cannot listen on port {other.port}" in err.decode()
