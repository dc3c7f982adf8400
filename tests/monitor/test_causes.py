"""Each cause why a postback has not been sent, made to happen, and the sentence that ``postbacks show`` says of it."""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from events import EVENT as SUB
from events import MO, MT
from helpers import Rig, claim, environment, remove_account, set_account

import postbacks
from postbacks import keys, send_postback, send_postbacks, settings
from postbacks.broker.clock import now_ms
from postbacks.broker.sign_of_life import SignOfLife
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver, dead_port
from postbacks.monitor import causes, situation
from postbacks.monitor.causes import CLAUSES, Cause, explain
from postbacks.operate import pause_account
from postbacks.queue.actions import cancel

ENDPOINT = "http://127.0.0.1:8080"
WORKER = "0123456789abcdef@0.2.0@worker1@host"
#: A time of day, and how far away it is.
PAST = r"\d\d:\d\d:\d\d UTC \([^()]+ ago\)"
FUTURE = r"\d\d:\d\d:\d\d UTC \(in [^()]+\)"


class World(ExitStack):
    """The rig, and what a cause needs beside it."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig

    def waiting(self, *events: dict[str, str], account: str = "acme", **options: object) -> list[str]:
        """Postbacks of an account that have been taken in."""
        set_account(account, url=f"{ENDPOINT}/", **options)
        ids = send_postbacks(account, events)
        self.rig.tick()
        return ids

    def failed(self) -> list[str]:
        """Three postbacks whose receiver has answered 500; they are due again, and stand in their lane."""
        receiver = self.enter_context(Receiver(lambda _: Answer(500)))
        set_account("acme", url=receiver.url())
        ids = send_postbacks("acme", [SUB] * 3)
        self.rig.tick()
        self.rig.deliver()
        self.rig.advance(301)
        self.rig.tick()
        return ids

    def configure(self, **values: str) -> None:
        """Configure the broker until the end."""
        for name, value in values.items():
            before = self.rig.client.config_get(name)[name]
            self.rig.client.config_set(name, value)
            self.callback(self.rig.client.config_set, name, before)

    def causes(self, postback_id: str) -> dict[str, Cause]:
        """The causes that are told, by name."""
        rig = self.rig
        causes = explain(
            rig.client, postback_id, rig.settings, clock_offset_ms=rig.scripts.clock_offset_ms
        ).causes
        assert len({cause.name for cause in causes}) == len(causes)
        return {cause.name: cause for cause in causes}


@pytest.fixture
def world(rig: Rig) -> Iterator[World]:
    """The world of one cause."""
    with World(rig) as world:
        yield world


#: Cause -> what makes it happen: returns the postback, the sentence as a pattern, and figures that it has.
MAKERS: dict[str, Callable[[World], tuple[str, str, dict[str, object]]]] = {}


def makes(maker: Callable[[World], tuple[str, str, dict[str, object]]]) -> None:
    """Enter a maker under the name of its cause."""
    MAKERS[maker.__name__] = maker


# -- what moves every postback ----------------------------------------------------------------------


@makes
def broker_refuses(world: World):
    (postback_id,) = world.waiting(SUB)
    world.configure(**{"min-replicas-to-write": "1"})
    return postback_id, r"the broker takes no writes: .* replicas .*", {}


@makes
def no_tick(world: World):
    (postback_id,) = world.waiting(SUB)
    world.rig.advance(74)
    return postback_id, rf"no tick has finished since {PAST}", {}


@makes
def no_worker(world: World):
    sign = SignOfLife(keys.WORKERS, "worker1@host")
    sign.give()
    (postback_id,) = world.waiting(SUB)
    world.rig.advance(20)
    assert "no_worker" not in world.causes(postback_id), "its sign is 20 s old, and it counts for 30"
    sign.withdraw()
    start = re.escape("start one (celery -A postbacks worker)")
    return postback_id, rf"no worker has been heard of since \d+-\d+-\d+ \d+:\d+:\d+ UTC: {start}", {}


@makes
def no_beat(world: World):
    postback_id = send_postback.delay("acme", SUB).id
    return postback_id, r"no beat has been heard of: start one \(celery -A postbacks beat\)", {"since": None}


# -- not taken in yet -------------------------------------------------------------------------------


@makes
def in_queue(world: World):
    *_, last = send_postbacks("acme", [SUB] * 3)
    urgent = send_postback.apply_async(("acme", SUB), priority=0).id
    assert world.causes(urgent)["in_queue"].figures["ahead"] == 3
    return last, r"it waits in Celery's queue for a tick, 2 messages before it", {"ahead": 2}


@makes
def in_intake(world: World):
    _, second = send_postbacks("acme", [SUB] * 2)
    world.rig.scripts.take_in("a tick", 10_000, 100)
    world.rig.advance(11)
    assert "the next one accepts it, as its lease ended at" in world.causes(second)["in_intake"].sentence
    world.rig.advance(-11)
    words = r"a tick has taken it from Celery's queue, 1 message before it; its lease ends at"
    return second, rf"{words} {FUTURE}", {"ahead": 1}


@makes
def queue_not_emptied(world: World):
    world.rig.tick()  # finds nothing
    postback_id = send_postback.delay("acme", SUB).id
    module = types.ModuleType("failing_accounts")
    module.store = types.SimpleNamespace(get=_fail, get_many=_fail)
    patched = world.enter_context(pytest.MonkeyPatch.context())
    patched.setitem(sys.modules, "failing_accounts", module)
    world.enter_context(environment(POSTBACKS_ACCOUNTS="failing_accounts:store"))
    world.rig.advance(42)
    world.rig.tick()
    words = "ticks finish and have not emptied the queue since"
    return postback_id, rf"{words} {PAST}: .*tick\.accounts_unavailable\)", {}


def _fail(*_: object) -> None:
    raise ConnectionError("the account store is down")


@makes
def memory_full(world: World):
    postback_id = send_postback.delay("acme", SUB).id
    used = world.rig.client.info("memory")["used_memory"]
    world.configure(maxmemory=str(int(used / 1.5)))
    assert "broker_refuses" not in world.causes(postback_id), "a full one takes the moves of what it has"
    words = "from 110% on nothing is taken in until something has ended"
    return postback_id, rf"the broker's memory is full to 1[45]\d%: {words}", {}


# -- in its lane ------------------------------------------------------------------------------------


@makes
def behind(world: World):
    *_, last = world.waiting(*[MT] * 5)
    return last, r"behind 4 of its account's postbacks in group mt", {"ahead": 4, "group": "mt"}


@makes
def account_still(world: World):
    (postback_id,) = world.waiting(SUB)
    remove_account("acme")
    assert world.causes(postback_id)["account_still"].sentence == "its account stands still: it was removed"
    world.rig.deliver_lanes()
    words = "its account stands still: it was removed; looked at again at"
    return postback_id, rf"{words} {FUTURE}", {"account_state": "gone"}


@makes
def account_paused(world: World):
    (postback_id,) = world.waiting(SUB)
    pause_account("acme", reason="they move", by="ann")
    command = r"`postbacks account resume acme` \(paused by ann, 'they move'\)"
    sentence = world.causes(postback_id)["account_paused"].sentence
    assert re.fullmatch(rf"its account is paused since {PAST}, until {command}", sentence)
    pause_account("acme", until_ms=now_ms(world.rig.client) + 60_000, reason="they move", by="ann")
    words = rf"its account is paused since {PAST}, until {FUTURE} or {command}"
    return postback_id, words, {"reason": "they move", "by": "ann"}


@makes
def rate(world: World):
    _, second = world.waiting(SUB, MO, rate="2/min")
    claim(world.rig, WORKER)
    return second, rf"its account's rate of 2/min lets the next POST begin at {FUTURE}", {"rate": "2/min"}


@makes
def account_limit(world: World):
    _, second = world.waiting(SUB, MO, max_transfers=1)
    claim(world.rig, WORKER)
    return second, r"its account has 1 POST open of at most 1", {"open": 1, "limit": 1}


@makes
def endpoint_limit(world: World):
    world.waiting(SUB, account="other")
    world.waiting(SUB)
    claim(world.rig, WORKER, endpoint_max=1)
    (lane,) = world.rig.client.zrange(keys.WAITING_FOR_ROOM + ENDPOINT, 0, -1)
    (waiting,) = world.rig.client.lrange(keys.lane(lane.decode()), 0, -1)
    words = r"and no room for more \(POSTBACKS_ENDPOINT_MAX_TRANSFERS\)"
    return waiting.decode(), rf"{ENDPOINT} has 1 POST open, {words}", {"open": 1}


@makes
def slow_start(world: World):
    port = world.enter_context(dead_port())
    set_account("acme", url=f"http://127.0.0.1:{port}/")
    (postback_id,) = send_postbacks("acme", [SUB])
    world.rig.tick()
    world.rig.deliver()
    assert "slow_start" not in world.causes(postback_id)
    world.rig.advance(301)
    world.rig.tick()
    words = rf"http://127\.0\.0\.1:{port} has taken no connection since {PAST}: it starts slowly"
    return postback_id, rf"{words}, with 1 POST at a time, 0 open", {"limit": 1, "open": 0}


@makes
def probe(world: World):
    ids = world.failed()
    assert world.causes(ids[0])["probe"].figures["open"] == 0
    claim(world.rig, WORKER, held_per_lane=2)
    (last,) = (postback_id for postback_id in ids if world.rig.record(postback_id).state == "waiting")
    words = rf"its receiver has failed since {PAST}: one POST at a time, 1 open, 1 held"
    return last, words, {"open": 1, "held": 1}


@makes
def lane_limit(world: World):
    _, second = world.waiting(SUB, SUB)
    claim(world.rig, WORKER)
    return second, r"its lane has 1 POST open of at most 1 just now", {"limit": 1}


@makes
def priority(world: World):
    *_, receipt = world.waiting(MO, MO, SUB, MT)
    words = r"3 postbacks of its account's general and mo go first"
    return receipt, words, {"count": 3}


@makes
def turn(world: World):
    world.waiting(SUB, account="later")
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER, at_most=0)  # a loop that has no room
    words = "among those that are new, slow or failing, 1 delivering loop at work"
    return postback_id, rf"its lane is ready: [01] lanes? before it {words}", {"ring": "suspect", "loops": 1}


@makes
def no_turn(world: World):
    (postback_id,) = world.waiting(SUB)
    world.rig.client.zrem(keys.READY_SUSPECT, "acme/general")
    return (
        postback_id,
        r"its lane has no turn, so no loop comes to it: postbacks doctor --fix gives it one",
        {},
    )


@makes
def misplaced(world: World):
    (postback_id,) = world.waiting(SUB)
    world.rig.client.lrem(keys.lane("acme/general"), 1, postback_id)
    words = "its record says waiting, and it stands nowhere: postbacks doctor --fix puts it where it belongs"
    return postback_id, words, {"state": "waiting"}


# -- in the quarantine ------------------------------------------------------------------------------


def die(world: World) -> None:
    """Let the lease of whatever is claimed end, and a tick take it over."""
    world.rig.advance(31)
    world.rig.tick()


@makes
def quarantine(world: World):
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    die(world)
    tried = "it was in flight when its process died, so an examiner tries it"
    assert (
        world.causes(postback_id)["quarantine"].sentence
        == f"{tried} with a few others; 1 postback in quarantine"
    )
    world.rig.scripts.examine("an examiner", 30_000)
    die(world)
    words = rf"{tried} alone, and last looked at {PAST}; 1 postback in quarantine"
    return postback_id, words, {"alone": True, "count": 1}


# -- parked -----------------------------------------------------------------------------------------


@makes
def countdown(world: World):
    set_account("acme", url=f"{ENDPOINT}/")
    postback_id = send_postback.apply_async(("acme", SUB), countdown=3600).id
    world.rig.tick()
    return postback_id, rf"its caller wants it sent at {FUTURE}", {}


@makes
def resend(world: World):
    postback_id, *_ = world.failed()
    world.rig.deliver()
    words = rf"attempt 2 failed \(answered \d+\); attempt 3 of 6 is due at {FUTURE}"
    return (
        postback_id,
        words,
        {"failed": 2, "failure": "answered 500", "attempt": 3, "of": 6, "outcome": "status"},
    )


@makes
def put_off(world: World):
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    world.rig.scripts.postpone(WORKER, 30_000, "account_changed", [postback_id])
    words = "its account has changed meanwhile, or cannot be used just now"
    return postback_id, rf"put off without an attempt until {FUTURE}: {words}", {"reason": "account_changed"}


@makes
def pause(world: World):
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    die(world)
    for _ in range(2):
        world.rig.scripts.examine("an examiner", 30_000)
        die(world)
    words = "its process died while it was sent alone; it is tried alone again at"
    return postback_id, rf"{words} {FUTURE}", {}


@makes
def overdue(world: World):
    set_account("acme", url=f"{ENDPOINT}/")
    postback_id = send_postback.apply_async(("acme", SUB), countdown=1).id
    world.rig.tick()
    world.rig.advance(74)
    assert world.causes(postback_id).keys() == {"countdown", "overdue", "no_tick", "no_worker", "no_beat"}
    return postback_id, rf"it was due at {PAST}, and no tick or loop has released it", {}


# -- at a loop --------------------------------------------------------------------------------------


@makes
def held(world: World):
    ids = world.failed()
    claim(world.rig, WORKER)
    postback_id = next(postback_id for postback_id in ids if world.rig.record(postback_id).state == "held")
    assert world.causes(postback_id).keys() == {"held", "probe"}
    return postback_id, r"held by worker worker1@host: no POST of it has begun", {"worker": "worker1@host"}


@makes
def open(world: World):  # noqa: A001 - the name of the cause
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    words = rf"attempt 1 is under way since {PAST}, by worker worker1@host"
    return postback_id, words, {"attempt": 1, "loop": "0123456789abcdef"}


@makes
def lease_over(world: World):
    (postback_id,) = world.waiting(SUB)
    claim(world.rig, WORKER)
    world.rig.client.zadd(keys.CLAIMERS, {WORKER: 0})  # as its worker does that sees the process die
    assert world.causes(postback_id)["lease_over"].sentence == "its process has died; a tick takes it over"
    world.rig.client.zadd(keys.CLAIMERS, {WORKER: 1})
    return postback_id, r"the lease of its loop has ended; a tick takes it over", {}


@makes
def revoked(world: World):
    ids = world.failed()
    claim(world.rig, WORKER)
    for postback_id in ids:
        cancel(postback_id)
    postback_id = next(postback_id for postback_id in ids if world.rig.record(postback_id).state == "held")
    assert world.causes(postback_id)["revoked"].sentence == "it was revoked: it ends instead of being sent"
    other = next(postback_id for postback_id in ids if world.rig.record(postback_id).state == "sending")
    return other, r"it was revoked: should its POST fail, it is not sent again", {}


# -- all of them ------------------------------------------------------------------------------------


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


# -- what an operator sees --------------------------------------------------------------------------


def show(*args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    done = CliRunner().invoke(main, ["show", *args], prog_name="postbacks")
    return done.exit_code, done.stdout, done.stderr


def test_show_says_why_under_the_state(world):
    """A clause a line; in JSON each with its figures; nothing of a postback that has ended."""
    *_, last = world.waiting(*[SUB] * 3)
    code, out, _ = show(last)
    lines = out.splitlines()
    assert (code, lines[1]) == (0, "state         waiting")
    assert lines[2] == "why           behind 2 of its account's postbacks in group general"
    assert lines[3].startswith(" " * 14 + "its lane is ready: 0 lanes before it among those that are new")
    assert lines[4].startswith("event ")
    _, out, _ = show(last, "--json")
    assert json.loads(out)["why"][0] == {
        "cause": "behind",
        "sentence": "behind 2 of its account's postbacks in group general",
        "ahead": 2,
        "exact": True,
        "group": "general",
    }
    cancel(last)
    _, out, _ = show(last)
    assert "\nwhy " not in out
    _, out, _ = show(last, "--json")
    assert json.loads(out)["why"] == []


def test_show_says_of_what_is_not_taken_in_where_it_waits(world):
    """An error still, with all that is known; in JSON as well."""
    postback_id, two = send_postbacks("acme", [SUB] * 2)
    code, out, err = show(two)
    assert (code, out) == (1, "")
    waits = "it waits in Celery's queue for a tick, 1 message before it"
    nobody = "no tick has ever finished; no worker has been heard of: start one (celery -A postbacks worker)"
    assert f"The ledger has no postback {two}: it is not taken in yet; {waits}; {nobody}; " in err
    code, out, _ = show(postback_id, "--json")
    public = json.loads(out)
    assert (code, public["id"], public["state"], public["why"][0]["ahead"]) == (1, postback_id, None, 0)
    _, _, err = show("nope")
    assert (
        "2 messages wait to be taken in, and it is none of the 2 looked at; no tick has ever finished" in err
    )
