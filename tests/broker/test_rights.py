"""The rights in docs/settings.md cover every script that a process may run, and those who only look may not write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import postbacks
from postbacks import keys

ROOT = Path(postbacks.__file__).parent
PAGE = (ROOT.parent / "docs" / "settings.md").read_text()
QUEUE = sorted(ROOT.glob("queue/*.lua"))
HISTORY = [*sorted(ROOT.glob("history/*.lua")), ROOT / "queue" / "_changes.lua"]
DOCTOR = sorted(ROOT.glob("doctor/*.lua"))
SIGN = [ROOT / "broker" / "sign_of_life.lua"]
SNAPSHOT = [ROOT / "monitor" / "snapshot.lua", ROOT / "queue" / "_shared.lua"]
#: Moves that the command line makes itself, and what stands in front of them.
OPERATOR = [
    ROOT / "queue" / f"{name}.lua"
    for name in (
        "cancel",
        "change_job",
        "drop",
        "erase",
        "erase_messages",
        "put_back",
        "set_pacing",
        "reap",
        "replay",
        "set_routes",
        "_cancel",
        "_changes",
        "_drop",
        "_resend",
        "_pacing",
        "_shared",
        "_slow_start",
        "_waiting",
    )
]
#: Moves of the process that runs history, beside the recorder's.
JOBS = [
    ROOT / "queue" / f"{name}.lua"
    for name in ("change_job", "move_job", "watch_job", "_cancel", "_drop", "_job", "_resend", "_shared")
]
WRITES = {"hset", "hdel", "hincrby", "lpush", "rpush", "lrem", "zadd", "zrem"}


def granted(kind: str) -> set[str]:
    """Commands that the page's lines give a kind of process."""
    lines = re.findall(rf"^    ACL SETUSER {kind} (.*)$", PAGE, re.MULTILINE)
    return {word[1:].partition("|")[0] for line in lines for word in line.split() if word[0] == "+"}


def called(paths: list[Path]) -> set[str]:
    """Commands that Lua files call."""
    pattern = re.compile(r"(?:redis\.p?call|call_many)\(\s*'([A-Za-z]+)'")
    return {command.lower() for path in paths for command in pattern.findall(path.read_text())}


@pytest.mark.parametrize(
    ("kind", "commands"),
    [
        ("worker", called(QUEUE) | called(SNAPSHOT) | called(SIGN)),
        ("beat", called(SIGN)),
        (
            "metrics",
            called(SNAPSHOT) - WRITES - {"exists", "expire", "hexists", "zrangebyscore"},
        ),  # of the moves that stand in _shared.lua
        ("doctor", (called(DOCTOR) | called(SNAPSHOT)) - WRITES - {"expire"}),
        ("recorder", called(HISTORY)),
        ("mover", called(HISTORY) | called(JOBS)),
        ("operator", called(DOCTOR) | called(OPERATOR) | called(SNAPSHOT) | called(HISTORY)),
    ],
)
def test_what_a_script_calls_is_allowed_to_who_runs_it(kind, commands):
    """A command that is new in a script is new on the page."""
    assert commands
    assert commands - granted(kind) == set()


@pytest.mark.parametrize("kind", ["metrics", "doctor"])
def test_who_only_looks_may_not_write(kind):
    """No command and no key pattern of theirs writes, but to the key that is never there."""
    assert granted(kind) & (WRITES | {"set", "del", "eval", "evalsha", "incrby", "expire"}) == set()
    lines = re.findall(rf"^    ACL SETUSER {kind} (.*)$", PAGE, re.MULTILINE)
    patterns = [word for line in lines for word in line.split() if "~" in word]
    assert [pattern for pattern in patterns if pattern[:3] != "%R~"] == [f"%W~{keys.PROBE}"]
    assert "lpush" not in granted(kind)  # which would make it
