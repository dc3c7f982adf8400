"""A disk that is full under the append-only file ends the broker, and loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from postbacks.devtools.embedded_broker import EmbeddedBroker


@pytest.mark.long
def test_a_full_disk_ends_the_broker_up_says_so_and_nothing_accepted_is_lost(tmp_path):
    """With appendfsync always there is no other way; it ends again after each start, until there is room."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [
            "unshare",
            *as_root,
            "--mount",
            sys.executable,
            str(Path(__file__).with_name("full_disk_scenario.py")),
        ],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("POSTBACKS_")},
            "PYTHONPATH": f"{tests.parent}:{tests}",
        },
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert done.returncode == 0, f"(without namespaces: run as root)\n{done.stdout}\n{done.stderr}"
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["accepted"] > 50
    assert told["lost"] == []
    assert told["doctor"].startswith("wrong: ")
    assert "MiB are free" in told["doctor"]
    for said in told["said"]:
        assert "The disk of" in said
        assert "data is full (" in said
        assert "Nothing that was accepted is lost: make room on that disk" in said
        assert "Traceback" not in said


def test_a_broker_that_ends_for_another_reason_says_the_end_of_its_log(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        broker.kill()
        assert "Ready to accept connections" in broker.why_ended()
        assert "is full" not in broker.why_ended()
