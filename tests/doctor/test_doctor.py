"""The doctor: silent about a healthy system, plain about a sick one, and no danger to either."""

from __future__ import annotations

import json
import re
import threading
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner
from events import MT
from helpers import environment, eventually, running, set_account

from postbacks import keys, send_postback, send_postbacks
from postbacks.cli import main
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Receiver, dead_port
from postbacks.doctor import CHECKS, Doctor, audit, history_checks
from postbacks.doctor import doctor as rounds
from postbacks.history import facts
from postbacks.history.engine import connect
from postbacks.history.feed import Feed
from postbacks.history.migrations import prepare
from postbacks.ledger.record import SCHEMA
from postbacks.monitor import snapshot
from postbacks.settings import load

LANE = "acme/mt"
FIXABLE = {check.name for check in CHECKS if check.fix}


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """A broker at rest needs no pause between two looks."""
    monkeypatch.setattr(rounds, "PAUSE_S", 0.0)


def doctor_of(rig, **options):
    """A doctor who looks twice without a pause."""
    return Doctor(rig.scripts, rig.settings, pause_s=0, **options)


def wrong(report):
    """Names of what is wrong."""
    return {result.check.name for result in report.wrong}


def call(*args, url=None):
    """Call the command in this process."""
    other = {"POSTBACKS_BROKER_URL": url, "POSTBACKS_BROKER_TIMEOUT_S": "0.5"} if url else {}
    with environment(**other):
        return CliRunner().invoke(main, ("doctor", *args), prog_name="postbacks")


class Ward:
    """A system with a postback of every kind; each id by its state."""

    def __init__(self, rig, port):
        self.rig, self.client = rig, rig.client
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        self.parked = send_postback.apply_async(("acme", MT), countdown=3600).id
        self.dead = "dead-1"
        first = send_postback.delay("acme", MT).id
        rig.tick()
        rig.client.hset(keys.LANE_STATE + LANE, mapping={"failing": 0})
        with Receiver() as receiver:
            self.done = send_postback.apply_async(("acme", MT), {"url": receiver.url()}).id
            rig.scripts.cancel(first, 60)
            rig.tick()
            rig.deliver()
        self.waiting = send_postbacks("acme", [MT] * 3)
        rig.tick()
        _, begun, *_ = rig.scripts.claim(
            "loop", 30_000, at_most=1, suspects_max=1, free=2000, held_max=0, held_per_lane=1, slow_lanes=()
        )
        self.sending = begun[0].id.decode()
        self.waiting.remove(self.sending)
        rig.tick()

    def field(self, one, name):
        return self.client.hget(keys.record(one), name)


@pytest.fixture
def ward(rig):
    with dead_port() as port:
        yield Ward(rig, port)


def lose_waiting(ward):
    ward.client.lrem(keys.lane(LANE), 1, ward.waiting[0])


def lose_parked(ward):
    ward.client.zrem(keys.PARKED, ward.parked)


def lose_done(ward):
    ward.client.zrem(keys.DONE, ward.done)


def lose_claim(ward):
    ward.client.hdel(keys.claims("loop"), ward.sending)


def double_in_lane(ward):
    ward.client.rpush(keys.lane(LANE), ward.waiting[0])


def double_parked(ward):
    ward.client.zadd(keys.PARKED, {ward.waiting[0]: 1 << 42})


def double_sending(ward):
    ward.client.rpush(keys.lane(LANE), ward.sending)


def double_quarantined(ward):
    ward.client.zadd(keys.QUARANTINE, {ward.waiting[0]: 0})


def die(ward):
    ward.client.zadd(keys.CLAIMERS, {"loop": 0})
    ward.rig.tick()


def die_long_ago(ward):
    die(ward)
    now_ms = int(ward.client.time()[0]) * 1000
    ward.client.hset(keys.record(ward.sending), "sent_ms", now_ms - 1_000_000)


def misplace(ward):
    ward.client.zrem(keys.PARKED, ward.parked)
    ward.client.rpush(keys.lane(LANE), ward.parked)


def misplace_lane(ward):
    ward.client.lrem(keys.lane(LANE), 1, ward.waiting[0])
    ward.client.rpush(keys.lane("other/mt"), ward.waiting[0])


def delete_record(ward):
    ward.client.delete(keys.record(ward.waiting[0]))


def delete_claimed_record(ward):
    ward.client.delete(keys.record(ward.sending))


def strange_state(ward):
    ward.client.hset(keys.record(ward.done), "state", "levitating")


def half_a_record(ward):
    ward.client.hdel(keys.record(ward.waiting[0]), "state")


def disown(ward):
    ward.client.zrem(keys.CLAIMERS, "loop")


def miscount(ward):
    ward.client.hset(keys.LANE_STATE + LANE, "claimed", 9)


def miscount_below(ward):
    ward.client.hset(keys.LANE_STATE + LANE, "claimed", -3)


def miscount_held(ward):
    ward.client.hset(keys.LANE_STATE + LANE, "held", 5)


def count_endpoint(ward):
    ward.client.hset(keys.ENDPOINTS, "http://gone:80", 3)


def stick(ward):
    ward.client.hset(keys.LANE_STATE + LANE, "limit", 10)
    ward.client.delete(keys.READY_TRUSTED, keys.READY_SUSPECT)


def empty_lane(ward):
    ward.client.zadd(keys.READY_SUSPECT, {"nobody/mt": 0})


def twice_in_turn(ward):
    ward.client.zadd(keys.READY_SUSPECT, {LANE: 0})
    ward.client.zadd(keys.READY_TRUSTED, {LANE: 0})


def backlog_up(ward):
    ward.client.hincrby(keys.BACKLOG, "acme", 7)


def backlog_gone(ward):
    ward.client.delete(keys.BACKLOG)


def far_lease(ward):
    ward.client.zadd(keys.CLAIMERS, {"loop": 1 << 42})


def far_intake(ward):
    ward.client.hset(keys.INTAKE_LEASE, mapping={"token": "tick", "expires_ms": 1 << 42})


def intake_left(ward):
    ward.client.rpush(keys.INTAKE, "message")


def overdue_lease(ward):
    ward.client.zadd(keys.CLAIMERS, {"loop": ward.client.time()[0] * 1000 - 60_000})


def overdue_parked(ward):
    ward.client.zadd(keys.PARKED, {ward.parked: ward.client.time()[0] * 1000 - 60_000})


def beat_gone(ward):
    ward.client.set(keys.LAST_TICK, ward.client.time()[0] * 1000 - 7_200_000)


def tick_late(ward):
    ward.client.set(keys.LAST_TICK, ward.client.time()[0] * 1000 - 20_000)


def clock_back(ward):
    ward.client.zadd(keys.DONE, {ward.done: ward.client.time()[0] * 1000 + 3_600_000})


def nobody_claims(ward):
    ward.client.zadd(keys.READY_SUSPECT, {LANE: 0})
    ward.client.delete(keys.CLAIMERS, keys.claims("loop"))
    ward.client.hset(keys.LANE_STATE + LANE, "claimed", 0)
    ward.client.hset(keys.record(ward.sending), "state", "waiting")
    ward.client.rpush(keys.lane(LANE), ward.sending)


def message(task):
    return json.dumps({"headers": {"task": task}, "body": ""})


def foreign(ward):
    ward.client.lpush(keys.WORK_QUEUE, message("shop.tasks.pay"))


def ours_in_celerys(ward):
    ward.client.lpush("celery", message("postbacks.send_postback"))


def pile(ward):
    ward.client.lpush(keys.WORK_QUEUE, *[message("postbacks.deliver")] * 101)


def keep_unacked(ward):
    ward.client.hset("unacked", "tag-1", json.dumps([json.loads(message("postbacks.deliver")), "", ""]))


def turn_feed_on(ward, **fields):
    """Turn the feed on, and write what recorders and ticks note of it."""
    Feed(ward.client).register()
    ward.client.hset(keys.HISTORY, mapping={"resync": "", **fields})


def no_recorder(ward):
    hours_ago_ms = (ward.client.time()[0] - 7_200) * 1000
    turn_feed_on(ward, on_ms=hours_ago_ms, seen_ms=hours_ago_ms)


def recorder_waits(ward):
    turn_feed_on(ward)
    feed = Feed(ward.client)
    feed.acquire("here:1", 600_000)
    feed.note("here:1", json.dumps({"waits": "The database does not answer.", "waits_since_ms": 1}))


def recorder_lags(ward):
    turn_feed_on(ward)
    Feed(ward.client).acquire("here:1", 600_000)
    ward.client.delete(keys.CHANGES)  # a stream takes no entry older than its newest
    ward.client.xadd(keys.CHANGES, {"ids": ward.waiting[0]}, id="1-1")


def feed_has_gap(ward):
    turn_feed_on(ward, resync="gap", gaps=1, gap_entries=5, gap_ms=1795478400000)


def feed_unheard(ward):
    turn_feed_on(ward)
    ward.client.zadd(keys.CLAIMERS, {"a-loop-of-0.1.0": (ward.client.time()[0] + 30) * 1000})


#: Damage, the check that finds it, words that must be said.
DAMAGE = [
    (lose_waiting, audit.NO_PLACE, "its record says waiting in acme/mt, it stands nowhere"),
    (lose_parked, audit.NO_PLACE, "its record says parked, it stands nowhere"),
    (lose_done, audit.NO_PLACE, "its record says delivered, it stands nowhere"),
    (lose_claim, audit.NO_PLACE, "its record says sending, it stands nowhere"),
    (double_in_lane, audit.TWO_PLACES, "lane acme/mt and lane acme/mt"),
    (double_parked, audit.TWO_PLACES, "lane acme/mt and parked"),
    (double_sending, audit.TWO_PLACES, "lane acme/mt and claims loop"),
    (double_quarantined, audit.TWO_PLACES, "lane acme/mt and quarantine"),
    (die, "quarantine", "1 in quarantine"),
    (die_long_ago, "quarantine-old", "one was last sent 16 min"),
    (misplace, audit.WRONG_PLACE, "its record says parked, it stands in lane acme/mt"),
    (misplace_lane, audit.WRONG_PLACE, "it stands in lane other/mt"),
    (delete_record, audit.NO_RECORD, "no record, it stands in lane acme/mt"),
    (delete_claimed_record, audit.NO_RECORD, "no record, it stands in claims loop"),
    (strange_state, audit.UNKNOWN_STATE, "levitating"),
    (half_a_record, audit.UNKNOWN_STATE, "it stands in lane acme/mt"),
    (disown, "claims-ownerless", "loop: 1 postback"),
    (miscount, audit.PACE, "acme/mt: says 9, 1 in claims"),
    (miscount_below, audit.PACE, "acme/mt: says -3, 1 in claims"),
    (miscount_held, audit.PACE, "acme/mt: says 5 held, 0 are"),
    (count_endpoint, audit.ENDPOINTS, "http://gone:80: says 3, 0 in claims"),
    (stick, audit.LANES_STUCK, "acme/mt: 2 waiting"),
    (empty_lane, audit.LANES_EMPTY, "nobody/mt"),
    (twice_in_turn, audit.LANES_TWICE, "acme/mt"),
    (backlog_up, audit.BACKLOG, "acme: says 11, 4 counted"),
    (backlog_gone, audit.BACKLOG, "acme: says 0, 4 counted"),
    (far_lease, "leases-ahead", "claims loop for"),
    (far_intake, "leases-ahead", "the intake for"),
    (intake_left, "intake", "1 message"),
    (overdue_lease, "leases-overdue", "loop since 6"),
    (overdue_parked, "parked-overdue", "1 postback, the first was due 6"),
    (beat_gone, "beat", "the last tick finished 2 h 0 min ago; postbacks.work is empty, so nobody sends any"),
    (tick_late, "ticks-late", "the last tick finished 2"),
    (clock_back, "clock-jump", "59 min from now"),
    (nobody_claims, "workers", "acme/mt is ready, no delivering loop runs"),
    (foreign, "foreign-messages", "1 of shop.tasks.pay in postbacks.work"),
    (ours_in_celerys, "foreign-messages", "1 of postbacks.send_postback in celery"),
    (pile, "work-queue", "101 in postbacks.work"),
    (keep_unacked, "unacked", "postbacks.deliver (tag-1)"),
    (no_recorder, "history-recorder", "none has been heard of for 2 h"),
    (recorder_waits, "history-behind", "it waits: The database does not answer."),
    (recorder_lags, "history-behind", "behind"),
    (feed_has_gap, "history-gap", "5 entries, the last at 2026-11-24T00:00:00"),
    (feed_unheard, "history-older", "0.1.0"),
]


def test_a_system_with_a_postback_of_every_kind_is_healthy(ward):
    report = doctor_of(ward.rig).examine()
    assert report.wrong == []
    assert "2 waiting, 1 claimed, 1 parked" in report.facts[2]


@pytest.mark.parametrize(("damage", "name", "words"), DAMAGE, ids=[damage[0].__name__ for damage in DAMAGE])
def test_each_damage_is_found_explained_and_repaired_where_no_guess_is_needed(ward, damage, name, words):
    """Found by the check that is made for it; after --fix a second look is clean and nothing was lost."""
    damage(ward)
    report = doctor_of(ward.rig).examine()
    result = next(result for result in report.results if result.check.name == name)
    assert result.findings, wrong(report)
    assert words in result.sentence
    assert result.check.remedy.endswith(".")
    kept = {one for one in (*ward.waiting, ward.parked, ward.done, ward.sending) if ward.field(one, "state")}
    report, done = doctor_of(ward.rig).fix()
    if name in FIXABLE:
        assert wrong(report) <= {"workers"}  # nobody runs here who would claim what is back in its lane
        assert name in {repair.result.check.name for repair in done}
        assert doctor_of(ward.rig).fix()[1] == []
    else:
        assert report.findings(name)
    for one in kept - {ward.done}:
        assert ward.field(one, "state") in {b"waiting", b"parked", b"sending", None}


def test_a_claim_that_the_ledger_lost_sight_of_is_sent_again_as_an_unknown_attempt(ward):
    """By the rule of reap: its POST may have begun."""
    lose_claim(ward)
    doctor_of(ward.rig).fix()
    assert [attempt.outcome for attempt in ward.rig.record(ward.sending).attempts] == ["unknown"]
    assert ward.client.zrange(keys.QUARANTINE, 0, -1) == [ward.sending.encode()]
    assert ward.client.hget(keys.LANE_STATE + LANE, "claimed") == b"0"


def test_lost_postbacks_go_back_to_the_front_in_their_order(ward):
    """The oldest first."""
    ward.client.delete(keys.lane(LANE))
    doctor_of(ward.rig).fix()
    assert [one.decode() for one in ward.client.lrange(keys.lane(LANE), 0, -1)] == ward.waiting


def test_what_moves_between_the_looks_is_not_reported(ward, monkeypatch):
    """Suspected in the first look, in its place at the second: not a word."""
    lose_parked(ward)

    def mend(_):
        ward.client.zadd(keys.PARKED, {ward.parked: int(ward.field(ward.parked, "next_ms"))})

    monkeypatch.setattr(rounds.time, "sleep", mend)
    assert doctor_of(ward.rig).examine().wrong == []


def test_records_of_another_version_are_worth_a_word(ward):
    ward.client.hset(keys.record(ward.done), "schema", SCHEMA + 1)
    report = doctor_of(ward.rig).examine()
    assert report.wrong == []
    assert report.findings("schemas")[str(SCHEMA + 1)] == f"version {SCHEMA + 1}: 1"


def test_an_audit_that_may_not_take_its_time_says_so(ward):
    report = doctor_of(ward.rig, within_s=0).examine()
    assert report.wrong == []
    assert report.findings("incomplete")


def test_more_accounts_than_are_asked_for_what_waits_are_said(rig, monkeypatch):
    """Nothing is judged of what waits in the others."""
    rig.client.hset(keys.BACKLOG, mapping={f"a{number}": 1 for number in range(1000)})
    monkeypatch.setattr(snapshot, "PAGES_MAX", 1)
    assert set(doctor_of(rig).examine().findings("incomplete")) == {"accounts"}
    monkeypatch.setattr(snapshot, "PAGES_MAX", 100)
    assert doctor_of(rig).examine().findings("incomplete") == {}


def test_the_first_line_says_how_far_it_looked(rig):
    """All records, or how many of about how many, in how long; the check in the listing says the same."""
    with dead_port() as port:
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        send_postbacks("acme", [MT] * 2500)
        while rig.tick().more:
            pass
        whole, cut = (
            CliRunner().invoke(main, ["doctor", "--within", within], prog_name="postbacks").stdout
            for within in ("60", "0")
        )
    assert re.fullmatch(r"looked at  all 2,500 records in \d+ s", whole.splitlines()[0])
    line = r"looked at  (\d,000 of about 2,500 records in \d+ s): give it more time \(--within\)"
    said = re.fullmatch(line, cut.splitlines()[0])
    assert said
    assert said[1] in cut.partition("incomplete")[2]


def test_an_audit_says_what_it_did_not_look_at_though_it_saw_every_record():
    """The time ran out behind the records: the ids in lanes and indexes were not asked for theirs."""
    done = audit.Audit(records=1_500_000, total=1_500_100, scanned=True, took_s=60.2)
    assert done.complete
    assert done.progress == "all 1,500,000 records in 60 s"
    done.missing = "every place for ids without a record"
    assert not done.complete
    assert done.progress == "all 1,500,000 records in 60 s, but not at every place for ids without a record"


def test_a_long_lane_is_read_to_its_end(rig):
    """More than one page, and a double at its other end is found."""
    with dead_port() as port:
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        ids = send_postbacks("acme", [MT] * 2500)
        while rig.tick().more:
            pass
        doctor = doctor_of(rig)
        assert "2,500 waiting" in doctor.examine().facts[2]
        rig.client.rpush(keys.lane(LANE), ids[0])
        assert list(doctor.examine().findings(audit.TWO_PLACES)) == [ids[0]]


# -- the broker -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "level", "name", "words"),
    [
        ({"appendonly": "no"}, "wrong", "append-only", "there is no append-only file"),
        ({"appendfsync": "no"}, "wrong", "append-only", "appendfsync is no"),
        ({"appendfsync": "everysec"}, "note", "fsync", "appendfsync is everysec"),
        ({"maxmemory-policy": "allkeys-lru"}, "wrong", "eviction", "maxmemory-policy is allkeys-lru"),
        ({"hash-max-listpack-value": "64"}, "note", "records", "hash-max-listpack-value is 64"),
        ({"hash-max-listpack-entries": "512"}, "note", "records", "hash-max-listpack-entries is 512"),
        ({"maxmemory": "1100000"}, "wrong", "memory", "(maxmemory) are used"),
    ],
)
def test_what_is_wrong_with_a_broker_is_named(config, level, name, words):
    with EmbeddedBroker(config=config) as broker:
        lines = [json.loads(line) for line in call("--json", url=broker.url).stdout.splitlines()]
    (found,) = [line for line in lines if line["check"] == name]
    assert found["level"] == level
    assert words in found["says"]


def test_a_broker_that_keeps_its_configuration_to_itself_is_said_to_do_so():
    """Hosted ones forbid CONFIG: the checks that ask by it note that they cannot see."""
    with EmbeddedBroker() as broker:
        with broker.client() as client:
            client.execute_command(
                "ACL", "SETUSER", "hosted", "on", ">secret", "~*", "&*", "+@all", "-config"
            )
        shown = call("--json", url=f"redis://hosted:secret@127.0.0.1:{broker.port}/0")
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    says = {line["check"]: line["says"] for line in lines if line["level"] == "note"}
    assert "the broker does not tell appendfsync" in says["fsync"]
    assert "the broker does not tell hash-max-listpack-value" in says["records"]


def test_a_replica_is_told_from_a_primary(broker):
    with EmbeddedBroker(config={"replicaof": f"127.0.0.1 {broker.port}"}) as replica:
        with replica.client() as client:
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
        shown = call("--json", url=replica.url)
        assert "it is a replica and takes no writes" in shown.stdout
        assert shown.exit_code == 1
        shown = call("--json", url=broker.url)
        assert '"check": "replicas", "level": "ok"' in shown.stdout


# -- the command ----------------------------------------------------------------------------------


def test_a_healthy_running_system_is_clean_while_it_works(broker, tmp_path, monkeypatch):
    """Real processes, postbacks on their way, failures among them: nothing to say, exit code 0."""
    monkeypatch.setattr(rounds, "PAUSE_S", 2.5)
    with Receiver(
        lambda post: Answer(500 if post.postback_id[-1] in "0123" else 200, delay_s=0.02)
    ) as receiver:
        for number in range(10):
            set_account(f"a{number}", url=receiver.url())
        with running(broker, tmp_path):
            eventually(lambda: broker.client().exists(keys.LAST_TICK), what="the first tick")
            stop = threading.Event()

            def send():
                while not stop.wait(0.2):
                    for number in range(10):
                        send_postbacks(f"a{number}", [MT] * 2)

            sender = threading.Thread(target=send)
            sender.start()
            try:
                receiver.wait_for(50, 90)
                for _ in range(2):
                    shown = call("--ping", "--json")
                    lines = [json.loads(line) for line in shown.stdout.splitlines()]
                    assert [line for line in lines if line["level"] == "wrong"] == []
                    assert shown.exit_code == 0
                shown = call("--fix", "--json")
                assert "fixed" not in json.loads(shown.stdout.splitlines()[0])
            finally:
                stop.set()
                sender.join()


def test_on_an_empty_database_it_says_what_to_start(broker):
    del broker
    shown = call()
    assert shown.exit_code == 1
    text = " ".join(shown.stdout.split())
    assert "no tick has ever finished" in text
    assert "no worker has been heard of" in text
    assert "no beat has been heard of" in text
    assert "3 wrong" in text


def test_when_workers_are_missing_it_says_so(broker):
    with broker.client() as client:
        client.lpush(keys.WORK_QUEUE, message("postbacks.dispatch"))
    send_postback.delay("acme", MT)
    text = " ".join(call().stdout.split())
    assert "1 wait in postbacks.work and no worker takes them; 1 postback waits to be taken in" in text


def test_a_ping_that_nobody_answers_is_wrong(broker):
    del broker
    shown = call("--ping", "--json")
    assert "no worker answered the ping" in shown.stdout


def test_a_wrong_database_is_guessed(broker):
    with broker.client() as client:
        client.set("shop:cart", "1")
    shown = call(url=broker.url.replace("/0", "/5"))
    assert "There are keys in db0" in " ".join(shown.stdout.split())


def test_json_is_one_object_a_check_and_the_exit_code_says_the_worst(ward):
    """And with --fix, what was done; a second run is clean."""
    assert call("--json").exit_code == 0
    lose_parked(ward)
    shown = call("--json")
    assert shown.exit_code == 1
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["check"] for line in lines] == [check.name for check in CHECKS]
    (found,) = [line for line in lines if line["level"] == "wrong"]
    assert set(found) == {"check", "level", "says", "do", "fixable", "count", "found"}
    assert (found["check"], found["fixable"], found["count"]) == (audit.NO_PLACE, True, 1)
    shown = call("--fix")
    assert shown.exit_code == 0
    assert f"{ward.parked}" in shown.stdout
    assert "FIXED  no-place" in shown.stdout
    shown = call("--fix")
    assert shown.exit_code == 0
    assert "nothing had to be repaired" in shown.stdout.lower()


@pytest.mark.parametrize("args", [(), ("--fix",), ("--json",)])
def test_a_broker_that_is_down_is_2_and_one_sentence(args):
    with dead_port() as port:
        shown = call(*args, url=f"redis://127.0.0.1:{port}/0")
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert "does not answer" in shown.stderr


def test_wrong_use_is_2():
    assert call("--within", "nan").exit_code == 2


# -- the history ----------------------------------------------------------------------------------


def test_a_feed_that_has_used_much_of_its_memory_is_wrong(ward, monkeypatch):
    turn_feed_on(ward)
    Feed(ward.client).acquire("here:1", 600_000)
    monkeypatch.setattr(history_checks, "NEARLY_FULL", 0.0)
    assert "of what they may take" in doctor_of(ward.rig).examine().findings("history-feed")[""]


def test_a_history_that_is_set_and_off_is_worth_a_word(ward, tmp_path):
    """And that its database cannot be read from here is wrong: nobody has made it."""
    with environment(POSTBACKS_HISTORY_URL=f"sqlite:///{tmp_path}/history.db"):
        ward.rig.settings = load()
        report = doctor_of(ward.rig).examine()
        assert report.findings("history-off") == {"": "no recorder has ever turned it on"}
        assert "is not there yet" in report.findings("history-database")[""]
        turn_feed_on(ward)
        Feed(ward.client).turn_off("asked")
        words = doctor_of(ward.rig).examine().findings("history-off")[""]
        assert re.fullmatch(r"since \S+Z, asked", words)


def test_a_history_of_a_newer_schema_is_wrong_and_its_password_is_not_shown(ward, tmp_path):
    engine = connect(f"sqlite:///{tmp_path}/history.db")
    prepare(engine)
    with environment(POSTBACKS_HISTORY_URL=f"sqlite:///{tmp_path}/history.db"):
        ward.rig.settings = load()
        assert doctor_of(ward.rig).examine().findings("history-database") == {}
        with engine.begin() as connection:
            facts.put(connection, {facts.SCHEMA: 99})
        engine.dispose()
    with environment(POSTBACKS_HISTORY_URL="postgresql://postbacks:hunter2@127.0.0.1:1/postbacks"):
        ward.rig.settings = load()
        words = doctor_of(ward.rig).examine().findings("history-database")[""]
        assert "127.0.0.1" in words
        assert "hunter2" not in words


# -- the table ------------------------------------------------------------------------------------


def test_the_documentation_lists_exactly_the_checks_of_the_table():
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (wrong|note) \| (.+?) \| (.*?) \|$", text, re.MULTILINE)
    assert rows == [(check.name, check.level, check.looks_at, check.fix or "no") for check in CHECKS]


@pytest.mark.parametrize(
    "path", [path for path in files("postbacks.doctor").iterdir() if path.name.endswith(".lua")], ids=str
)
def test_a_script_of_the_doctor_uses_the_arguments_that_its_header_names(path):
    text = path.read_text()
    header = re.match(r"(?:--.*\n)+", text).group()
    body = text[len(header) :]
    assert header.startswith(f"-- {path.name.removesuffix('.lua')}: ")
    assert "-- Returns " in header
    named = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", header)}
    rest = [int(number) for number in re.findall(r"ARGV\[(\d+)\.\.\]", header)]
    assert {int(number) for number in re.findall(r"ARGV\[(\d+)\]", body)} == named
    assert all(re.search(rf"= {first}(?: \+ extra)?, ", body) for first in rest)
    assert "postbacks:" not in body
