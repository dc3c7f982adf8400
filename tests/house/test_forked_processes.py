"""Processes that the suite starts as forks, beside the same started as always."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forked_processes import forking

POSTBACKS = str(Path(sys.executable).with_name("postbacks"))


def started(*words: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [POSTBACKS, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


@pytest.mark.parametrize(
    "words", [["account", "show", "--nothing"], ["status"], ["send", "acme", "-"]], ids=" ".join
)
def test_a_command_prints_and_returns_the_same(words, tmp_path):
    """Options, variables, directory and input are its own, and those of no other fork."""
    env = {**os.environ, "POSTBACKS_BROKER_URL": "redis://127.0.0.1:1/0"}

    def run() -> tuple[object, ...]:
        done = subprocess.run(
            [POSTBACKS, *words], env=env, cwd=tmp_path, input="{", capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    as_always = run()
    with forking():
        assert run() == as_always
    assert as_always[0] == 2


def test_a_fork_is_a_child_in_the_group_that_was_asked_for_and_dies_of_its_signals(suites_broker):
    with forking():
        receiver = started("receive", "--port", "0", process_group=0)
        try:
            assert receiver.stdout is not None
            assert re.match(r"\S", receiver.stdout.readline())
            assert Path(f"/proc/{receiver.pid}/stat").read_text().rpartition(")")[2].split()[1] == str(
                os.getpid()
            )
            assert os.getpgid(receiver.pid) == receiver.pid
            assert "forked_processes" in Path(f"/proc/{receiver.pid}/cmdline").read_text()
            os.killpg(receiver.pid, signal.SIGKILL)
            assert receiver.wait(60) == -signal.SIGKILL
        finally:
            receiver.kill()
            receiver.communicate()


def test_what_reads_other_variables_while_it_is_imported_is_started_as_always():
    with forking(), started("receive", "--port", "0", env={**os.environ, "LC_ALL": "C"}) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        assert "forked_processes" not in Path(f"/proc/{receiver.pid}/cmdline").read_text()
        receiver.kill()
