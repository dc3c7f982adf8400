"""Each cause why a postback has not been sent, made to happen, and what is said of it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cause_makers import FUTURE, MAKERS
from cause_world import ENDPOINT, WORKER, die
from events import EVENT as SUB
from events import MO, MT
from helpers import claim, environment, remove_account, set_account

import postbacks
from postbacks import keys, send_postbacks, settings
from postbacks.monitor import causes, situation
from postbacks.monitor.causes import CLAUSES, explain


def test_every_cause_is_made():
    """Every cause that is told has been seen to happen."""
    assert MAKERS.keys() == CLAUSES.keys()


def test_the_page_says_of_every_cause_what_to_do():
    """docs/operating.md has a row for each, and no other."""
    page = (Path(postbacks.__file__).parents[1] / "docs" / "operating.md").read_text()
    table = page[page.index("| `cause` |") :].partition("\n\n")[0]
    rows = [row.split(" | ")[0] for row in table.splitlines()[2:]]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(CLAUSES)


@pytest.mark.parametrize("name", MAKERS)
def test_a_cause_is_told_with_its_figures(world, name):
    """The sentence, the figures, and times as ISO 8601."""
    postback_id, sentence, figures = MAKERS[name](world)
    causes = world.causes(postback_id)
    assert name in causes, causes
    assert re.fullmatch(sentence, causes[name].sentence), causes[name].sentence
    public = json.loads(json.dumps(causes[name].to_public_dict()))
    assert (public.pop("cause"), public.pop("sentence")) == (name, causes[name].sentence)
    assert figures.items() <= public.items(), public
    for figure in {"since", "at", "until", "examined"} & public.keys():
        assert public[figure] is None or datetime.fromisoformat(public[figure]).tzinfo == UTC


def test_nobody_is_said_to_be_missing_of_whom_the_broker_takes_no_signs_of_life(world):
    """As health and the doctor judge it: a broker that takes no writes takes no signs either."""
    postback_id, _, _ = MAKERS["broker_refuses"](world)
    world.rig.advance(74)
    assert set(world.causes(postback_id)) == {"broker_refuses", "no_tick", "turn"}


def test_what_a_held_one_and_one_in_quarantine_wait_for_besides(world):
    """No lane waits in their stead: the rate, the limit of the account and that of the endpoint are compared."""
    ids = world.failed()
    endpoint = world.rig.client.hget(keys.record(ids[0]), "endpoint").decode()
    set_account("acme", url=f"{endpoint}/", rate="2/min", max_transfers=1)
    claim(world.rig, WORKER, endpoint_max=1)
    postback_id = next(postback_id for postback_id in ids if world.rig.record(postback_id).state == "held")
    assert world.causes(postback_id).keys() == {"held", "probe", "rate", "account_limit"}
    with environment(POSTBACKS_ENDPOINT_MAX_TRANSFERS="1"):
        world.rig.settings = settings.load()
        words = f"{endpoint} has 1 POST open of at most 1 (POSTBACKS_ENDPOINT_MAX_TRANSFERS)"
        assert world.causes(postback_id)["endpoint_limit"].sentence == words
    tried = next(postback_id for postback_id in ids if world.rig.record(postback_id).state == "sending")
    die(world)
    claim(world.rig, WORKER)  # the room of the account, which nothing is kept of while no examiner looks
    assert world.causes(tried).keys() == {"quarantine", "account_limit"}


def test_room_that_is_kept_for_the_quarantine_is_told(world):
    """An account's limit is not reached, and its lane waits all the same."""
    tried, waits = world.waiting(SUB, SUB, max_transfers=1)
    claim(world.rig, WORKER)
    world.rig.scripts.examine("an examiner", 30_000)  # finds nothing
    world.rig.client.zadd(keys.CLAIMERS, {WORKER: 0})
    world.rig.tick()
    claim(world.rig, WORKER)
    assert world.causes(tried).keys() == {"quarantine"}
    words = "its account has 0 POSTs open of at most 1; the rest has just come free, or is kept for the quarantine"
    assert world.causes(waits)["account_limit"].sentence == words


def test_what_an_examiner_has_put_off_says_that_its_account_stands_or_stood_still(world):
    """The postback is parked, so that no examiner waits for its account."""
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    die(world)
    remove_account("acme")
    world.rig.scripts.examine("an examiner", 30_000)
    words = rf"its account stands still: it was removed; looked at again at {FUTURE}"
    assert re.fullmatch(words, world.causes(postback_id)["account_still"].sentence)
    set_account("acme", url=f"{ENDPOINT}/")
    words = rf"put off without an attempt until {FUTURE}: its account stood still"
    assert re.fullmatch(words, world.causes(postback_id)["put_off"].sentence)


def test_a_lane_that_gives_way_to_more_urgent_ones_waits_for_its_rate(world):
    """MT of an account with a rate: both causes are told."""
    *_, receipt = world.waiting(SUB, MO, MO, MT, rate="2/min")
    claim(world.rig, WORKER)
    assert {"rate", "priority"} <= world.causes(receipt).keys()


def test_what_stands_deeper_than_is_looked_is_told_by_a_bound(world, monkeypatch):
    """A position is found from both ends of a lane; so is a message in the queue."""
    monkeypatch.setattr(situation, "POSITION_MAX", 2)
    monkeypatch.setattr(causes, "POSITION_MAX", 2)
    monkeypatch.setattr(situation, "TURN_MAX", 1)
    monkeypatch.setattr(causes, "TURN_MAX", 1)
    monkeypatch.setattr(situation, "MESSAGES_MAX", 2)
    ids = world.waiting(*[SUB] * 6)
    ahead = [world.causes(postback_id)["behind"].figures["ahead"] for postback_id in ids[1:]]
    assert ahead == [1, 2, 2, 4, 5]
    assert (
        world.causes(ids[3])["behind"].sentence
        == "behind more than 2 of its account's postbacks in group general"
    )
    for name in ("one", "two"):
        world.waiting(SUB, account=name)
    assert world.causes(ids[0])["turn"].sentence.startswith("its lane is ready: more than 1 lane before it")
    ids = send_postbacks("acme", [SUB] * 6)
    assert [len(world.causes(postback_id)) for postback_id in ids] == [1, 1, 0, 0, 1, 1]
    explanation = explain(world.rig.client, ids[3], world.rig.settings)
    assert (explanation.record, explanation.looked_at) == (None, (4, 6))


def test_how_long_an_endpoint_has_to_fail_and_what_a_rate_catches_up_with_are_the_scripts():
    """Two numbers of Lua that the sentences need."""
    lua = "".join(path.read_text() for path in Path(postbacks.__file__).parent.glob("queue/*.lua"))
    assert f"BURST_US = {causes.BURST_US} " in lua
    assert re.search(rf"\bWHILE_MS\b[\w, ]* = {causes.SLOW_START_AFTER_MS}\b", lua)
    assert f"ALONE = 0, 1, {situation.ALONE}\n" in lua


def test_of_a_record_that_a_newer_version_or_a_hand_has_written_nothing_is_guessed(world):
    """A state that this version does not know has no causes; a group that nobody knows has those of its lane."""
    (postback_id,) = world.waiting(SUB)
    world.rig.client.hset(keys.record(postback_id), "state", "thawing")
    assert world.causes(postback_id) == {}
    world.rig.client.hset(keys.record(postback_id), mapping={"state": "waiting", "group": "fax"})
    assert world.causes(postback_id).keys() == {"misplaced"}


#: Commands that write nothing; LPUSHX goes to a key that is never there.
READS = {"exec", "get", "hget", "hgetall", "hmget", "info", "lindex", "llen", "lpos", "lpushx", "lrange", "multi",
         "time", "zcard", "zrange", "zscore"}  # fmt: skip


def test_nothing_is_written_and_little_is_asked(world):
    """A postback among many costs a bounded number of commands, whatever it waits for."""
    ids = world.waiting(*[SUB] * 50)
    world.rig.client.config_resetstat()
    world.causes(ids[-1])
    calls = {
        name.removeprefix("cmdstat_"): command["calls"]
        for name, command in world.rig.client.info("commandstats").items()
    }
    calls.pop("config|resetstat")
    assert calls.keys() <= READS
    assert sum(calls.values()) <= 60
    assert not world.rig.client.exists(keys.PROBE)
