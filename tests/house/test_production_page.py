"""docs/production.md of a system that is set up wrongly: its lines say otherwise.

``tests/containers/test_containers.py`` has them say what they must, of one that is set up rightly.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

import production_page
import pytest
from click.testing import CliRunner
from helpers import environment

from postbacks import accounts
from postbacks.accounts import secrets
from postbacks.cli import main
from postbacks.doctor import doctor as rounds

LINES = {line.number: line for line in production_page.lines()}


def says(number: int, *, command: str = "", **env: str) -> tuple[bool, str]:
    """Type a line in this process, maybe with another value in it; tell whether it says what it must, and what."""
    line = LINES[number]
    words = (command or line.command).split()
    assert words[0] == "postbacks"
    with environment(**env):
        output = CliRunner().invoke(main, words[1:], prog_name="postbacks").output
    return line.is_met_by(output), output


@pytest.fixture
def spoilt(own_broker):
    """A broker without a password that evicts, forgets and has no limit, and nobody who works on it."""
    with own_broker.client() as client:
        for name, value in (("maxmemory-policy", "allkeys-lru"), ("appendonly", "no"), ("requirepass", "")):
            client.config_set(name, value)
    with environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{own_broker.port}/0"):
        yield


def test_there_are_twelve_lines_and_each_says_something():
    """A number each, a command and words."""
    assert list(LINES) == list(range(1, 13))
    assert all(line.command and line.says for line in LINES.values())
    assert {line.place for line in LINES.values()} == {"worker", "history", "host"}


def test_a_line_of_a_container_can_stand_behind_exec():
    """No shell is there: a variable is env's, and a pipe the shell's that the line names."""
    commands = [shlex.split(line.command) for line in LINES.values() if line.place != "host"]
    assert {words[0] for words in commands} == {"postbacks", "env", "sh"}
    assert not any({"|", "&&", ">"} & set(words) for words in commands)


def test_a_broker_that_forgets_and_nobody_who_works_are_found(spoilt, monkeypatch):
    """Lines 1, 2, 3 and 7: doctor names what is wrong, nobody is heard of, no password is wanted, nothing is recorded."""
    monkeypatch.setattr(rounds, "PAUSE_S", 0.1)
    is_met, output = says(1, command="postbacks doctor")
    assert not is_met
    assert {"eviction", "append-only"} <= set(output.split())
    is_met, output = says(2)
    assert not is_met
    assert '"workers": 0' in output
    is_met, output = says(3, command="postbacks health")
    assert not is_met
    assert output.startswith("not well: No tick has ever finished")
    assert not says(7)[0]


def test_a_key_that_is_not_the_one_that_sealed_is_found(broker, receiver):
    """Line 8, and a receiver of 200: what is not signed would be refused by customers."""
    key = secrets.new_key()
    accounts.redis_accounts().set(accounts.make_account("canary", url=receiver.url()))
    assert not says(8)[0], "it is not signed"
    rotated = CliRunner(env={"POSTBACKS_SECRET_KEY": key}).invoke(
        main, ["account", "secret", "rotate", "canary"]
    )
    assert rotated.exit_code == 0
    assert says(8, POSTBACKS_SECRET_KEY=key)[0]
    assert not says(8, POSTBACKS_SECRET_KEY=secrets.new_key())[0]


def test_an_address_that_may_be_reached_is_found(receiver):
    """Line 9, of this machine instead of the cloud's: the suite allows it, so it is not refused."""
    is_met, output = says(9, command=f"postbacks ping {receiver.url()}")
    assert not is_met
    assert "answered 200" in output


def test_a_backup_of_yesterday_or_an_empty_one_is_found(tmp_path: Path):
    """Line 11, in the folder of the backups."""
    copy = tmp_path / "redis.rdb"
    copy.write_bytes(b"REDIS")

    def typed() -> str:
        return subprocess.run(["sh", "-c", LINES[11].command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout  # fmt: skip

    assert LINES[11].is_met_by(typed())
    yesterday_s = time.time() - 86_400
    os.utime(copy, (yesterday_s, yesterday_s))
    assert not LINES[11].is_met_by(typed())
    copy.write_bytes(b"")
    assert not LINES[11].is_met_by(typed())


@pytest.mark.parametrize(
    ("number", "output"),
    [
        (4, "postbacks_scrape_complete 1.0\npostbacks_broker_memory_limit_bytes 2.5e+10\n"),
        (5, '{"status":"success","data":{"groups":[]}}'),
        (6, "401 200 "),
        (10, "1024\n"),
        (12, "7c0e1f3a waiting after 30 s: no worker has been heard of"),
    ],
)
def test_another_answer_is_not_taken_for_the_right_one(number, output):
    """Lines whose wrong set-up would take a stack of its own."""
    assert not LINES[number].is_met_by(output)


def test_more_than_the_least_will_do():
    """Three workers are two at least, and a limit may be higher."""
    assert LINES[2].is_met_by('{"ok": true, "workers": 3, "beats": 2}')
    assert not LINES[2].is_met_by('{"ok": true, "workers": 3, "beats": 1}')
    assert LINES[10].is_met_by("1048576\n")
