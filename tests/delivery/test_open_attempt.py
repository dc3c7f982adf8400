"""Words of `show` on a postback that a loop has: its open attempt, what it is held for, a lease that has ended."""

from __future__ import annotations

import json

from click.testing import CliRunner
from events import EVENT
from helpers import Rig, claim, set_account

from postbacks import keys, send_postbacks
from postbacks.cli import main
from postbacks.ledger.ledger import Ledger

TOKEN = "0123456789abcdef@0.2.0@worker1@host"


def show(*args: str) -> str:
    """Return the output of the command."""
    return CliRunner().invoke(main, ["show", *args], prog_name="postbacks").stdout


def test_show_tells_an_open_attempt_from_a_postback_that_is_held(rig: Rig):
    """Of a lane that fails one is sent, and the others are held behind it."""
    set_account("acme", url="http://127.0.0.1:8080/")
    probe, held, waiting = send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    rig.client.hset(f"{keys.LANE_STATE}acme/general", "failing", 1)
    claim(rig, TOKEN, held_per_lane=2)
    lines = [line for line in show(probe).splitlines() if line.startswith("open")]
    assert len(lines) == 1
    assert "attempt 1 since " in lines[0]
    assert lines[0].endswith("s), worker worker1@host, loop 0123456789ab")
    told = json.loads(show(probe, "--json"))["claim"]
    assert (told["attempt"], told["worker"], told["loop"]) == (1, "worker1@host", TOKEN.partition("@")[0])
    assert 0 <= told["for_s"] < 60
    assert "held          worker worker1@host, loop 0123456789ab" in show(held)
    told = json.loads(show(held, "--json"))["claim"]
    assert (told["attempt"], told["since"], told["for_s"]) == (None, None, None)
    assert json.loads(show(waiting, "--json"))["claim"] is None
    assert "worker1" not in show(waiting)


def test_show_says_that_a_lease_has_ended_and_that_an_older_loop_names_no_worker(rig: Rig):
    """Of a loop that died, or was seen to die, until another one takes its postbacks over."""
    set_account("acme", url="http://127.0.0.1:8080/")
    (one,) = send_postbacks("acme", [EVENT])
    rig.tick()
    claim(rig, "0123456789abcdef")
    seconds, _ = rig.client.time()
    rig.client.zadd(keys.CLAIMERS, {"0123456789abcdef": (seconds - 7) * 1000})
    assert "worker of an older version, loop 0123456789ab; its lease ran out " in show(one)
    rig.client.zadd(keys.CLAIMERS, {"0123456789abcdef": 0})
    assert "; its process has died, and another loop takes it over" in show(one)
    rig.client.zrem(keys.CLAIMERS, "0123456789abcdef")
    assert Ledger(rig.client).claim_of(one) is None
