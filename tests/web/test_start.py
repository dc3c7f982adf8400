"""``postbacks web``: where it starts, where it does not, and its users."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import environment

from postbacks.cli import main
from postbacks.web.security import passwords, users

pytestmark = pytest.mark.usefixtures("forked")

POSTBACKS = str(Path(sys.executable).with_name("postbacks"))


def run(*args, given=None, **variables):
    """Run a command in this process."""
    with environment(**variables):
        return CliRunner().invoke(main, ["web", *args], input=given)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "postbacks.example"])
def test_where_strangers_come_it_refuses_to_start_without_a_login(host):
    done = run("--host", host)
    assert done.exit_code == 2
    assert done.stdout == ""
    sentence = done.stderr.removeprefix("Error: ")
    assert sentence.startswith(f"On {host} others than this machine's users can reach the dashboard")
    assert sentence.count("\n") == 1
    assert "POSTBACKS_WEB_USERS" in sentence


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"POSTBACKS_WEB_USERS": "/no/such/file"}, "/no/such/file cannot be read"),
        ({"POSTBACKS_WEB_PROXY_HEADER": "X-User"}, "go together"),
        ({"POSTBACKS_WEB_PROXY_ADDRESSES": "10.0.0.0/8"}, "go together"),
        ({"POSTBACKS_WEB_TOKEN": "short"}, "POSTBACKS_WEB_TOKEN=(not shown): too short to be a key"),
        ({"POSTBACKS_WEB_KEY": "short"}, "POSTBACKS_WEB_KEY=(not shown): too short to be a key"),
        ({"POSTBACKS_WEB_HOSTS": "https://here/"}, "POSTBACKS_WEB_HOSTS='https://here/'"),
    ],
)
def test_a_login_that_cannot_be_is_refused_with_a_sentence(variables, words):
    done = run(**variables)
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_not_this_machines_is_a_sentence():
    done = run("--host", "192.0.2.1", POSTBACKS_WEB_TOKEN="t" * 16)
    assert done.exit_code == 2
    assert "of 192.0.2.1 cannot be had" in done.stderr


def test_on_loopback_it_runs_without_a_login_and_says_so(broker):
    with subprocess.Popen([POSTBACKS, "web", "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.stderr.readline() + process.stderr.readline()
            url = said.partition("is at ")[2].partition(". ")[0]
            with urllib.request.urlopen(url, timeout=60) as page:
                text = page.read().decode()
                assert page.headers["server"] is None
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=60)[1]
    assert "all rights" in said
    assert re.search(r"<aside [^>]*>[^<]*all rights", text)  # a landmark, for whoever walks by these
    assert (process.returncode, rest) == (0, "")


def test_a_user_is_added_listed_changed_and_removed(tmp_path):
    file = str(tmp_path / "users")
    assert (
        run("user", "add", "ann", "--role", "support", "--file", file, given="a long password\n").exit_code
        == 0
    )
    assert run("user", "add", "bob", "--role", "viewer", "--no-password", "--file", file).exit_code == 0
    ann = users.read(Path(file))["ann"]
    assert passwords.matches("a long password", ann.hash)
    listed = run("user", "list", "--json", POSTBACKS_WEB_USERS=file).stdout.splitlines()
    assert [json.loads(line) for line in listed] == [
        {"name": "ann", "role": "support", "password": True},
        {"name": "bob", "role": "viewer", "password": False},
    ]
    assert run("user", "add", "ann", "--role", "admin", "--no-password", "--file", file).exit_code == 0
    assert users.read(Path(file))["ann"] == users.User("ann", "admin", "")
    assert run("user", "remove", "ann", "--file", file).exit_code == 0
    again = run("user", "remove", "ann", "--file", file)
    assert (again.exit_code, "has no user 'ann'" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("args", "given", "words"),
    [
        (["ann", "--role", "viewer", "--file", "users"], "short\n", "A password has 10 to"),
        (["a:b", "--role", "viewer", "--file", "users"], "a long password\n", "no colon"),
        (["ann", "--role", "boss", "--file", "users"], "a long password\n", "boss"),
        (["ann", "--role", "viewer"], "a long password\n", "Which file?"),
    ],
)
def test_a_user_that_cannot_be_is_refused(tmp_path, monkeypatch, args, given, words):
    monkeypatch.chdir(tmp_path)
    done = run("user", "add", *args, given=given)
    assert done.exit_code == 2
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []
