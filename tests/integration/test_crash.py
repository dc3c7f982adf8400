"""Nothing is lost whatever dies: a short form of ``make crash``, and the proof that its comparison can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers import environment, set_account
from kombu.exceptions import OperationalError
from standardwebhooks import Webhook

from postbacks import send_postbacks
from postbacks.devtools.receiver import Answer, Received, Receiver
from postbacks.ledger.record import Attempt
from postbacks.queue.rows import AttemptRow
from postbacks.tasks import decide
from postbacks.worker import process

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from crash.customers import CHANGED, KEY, Change, changes, host_of, key_of, secret_of  # noqa: E402 - as below
from crash.history import STALE, History  # noqa: E402
from crash.ledger import (  # noqa: E402 - crash/ is a tool of this repository, not a part of the package
    FORGOTTEN,
    NO_ANSWER,
    NO_REASON,
    UNKNOWN,
    UNSIGNED,
    WRONG_HOST,
    WRONG_KEY,
    WRONG_SIGNATURE,
    Entry,
    Held,
    Ledger,
    Post,
    compare,
)
from crash.plan import KILLS, KINDS, MIN_KILLS, make_plan  # noqa: E402
from crash.receive import Judge  # noqa: E402

EVENT = {"ORIGIN": "SUB", "CODE": "N302", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}
DELIVERED = Entry("delivered", {1: "delivered"})


def test_whatever_dies_while_a_thousand_postbacks_travel_none_is_lost_and_none_is_stuck(tmp_path):
    """Every kind of fault once, within twelve seconds of load; always on the same plan."""
    out = tmp_path / "ledger.json"
    command = [sys.executable, "-m", "crash", "--seed", "11", "--fsync", "always", "--seconds", "14"]
    done = subprocess.run(
        [*command, "--postbacks", "1000", "--drain", "25", "--json", str(out)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("POSTBACKS_")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    print(done.stdout, done.stderr)
    ledger = json.loads(out.read_text())["columns"]["always"]
    assert ledger["lost"] == []
    assert ledger["stuck"] == []
    assert ledger["accepted"] == 1000
    assert ledger["delivered"] + ledger["dead"] + ledger["skipped"] == 1000
    assert (ledger["astray"], ledger["unexplained"]) == ({}, [])
    assert {"unknown_account", "origin_off"} <= set(ledger["reasons"]), (
        "accounts were removed and switched off"
    )
    assert set(ledger["faults"]) == set(KINDS)
    assert ledger["broken"] == []
    assert done.returncode == 0


# -- the comparison can fail ----------------------------------------------------------------------


def made(
    *,
    accepted: dict[str, float] | None = None,
    posts: list[Post] | None = None,
    entries: dict[str, Entry] | None = None,
    places: dict[str, list[str]] | None = None,
    deaths: tuple[float, ...] = (),
) -> Ledger:
    """Lists of which all is well, but for what is given: postback ``a`` was delivered at the first POST."""
    held = Held(
        {"a": DELIVERED} if entries is None else entries, {"a": ["done"]} if places is None else places, {}
    )
    return compare(
        accepted or {"a": 10.0},
        [Post("a", 1, 11.0, "200")] if posts is None else posts,
        held,
        unsynced_deaths=deaths,
    )


def test_lists_that_agree_show_no_fault():
    """One accepted, received, delivered."""
    ledger = made()
    assert (ledger.accepted, ledger.delivered, ledger.dead) == (1, 1, 0)
    assert ledger.faults(may_lose=False) == []


@pytest.mark.parametrize(
    "lists",
    [
        {"posts": [], "entries": {}, "places": {}},
        {"posts": []},  # only the ledger says that it was delivered
        {"posts": [Post("a", 1, 11.0, "500")]},
    ],
    ids=["nowhere", "delivered by the ledger alone", "answered with 500"],
)
def test_a_loss_is_reported(lists):
    """With ``everysec`` as well, unless the broker was killed within two seconds."""
    for deaths in ((), (9.0, 13.0)):
        ledger = made(**lists, deaths=deaths)
        assert ledger.lost == ["a"]
        assert ledger.faults(may_lose=bool(deaths)) == ["1 lost: a"]


def test_what_a_dying_broker_had_not_written_is_reported_by_itself():
    """Accepted at 10.0, the broker killed at 11.5."""
    ledger = made(posts=[], entries={}, places={}, deaths=(11.5,))
    assert (ledger.lost, ledger.unsynced) == ([], ["a"])
    assert ledger.faults(may_lose=True) == []
    assert ledger.faults(may_lose=False) == ["1 lost: a"]


@pytest.mark.parametrize("state", ["waiting", "sending", "parked"])
def test_a_stuck_one_is_reported(state):
    """Whether or not it has arrived."""
    for posts in ([], [Post("a", 1, 11.0, "200")]):
        ledger = made(posts=posts, entries={"a": Entry(state, {})}, places={"a": [state]})
        assert (ledger.stuck, ledger.lost) == (["a"], [])
        assert ledger.faults(may_lose=True) == ["1 stuck: neither delivered nor dead: a"]


def test_one_left_in_the_queue_is_stuck():
    """It has no record yet."""
    assert made(posts=[], entries={}, places={"a": ["queue"]}).stuck == ["a"]


def test_a_dead_one_is_no_loss():
    """Its story stands in the ledger."""
    ledger = made(posts=[], entries={"a": Entry("dead", {1: "http_error"})}, places={"a": ["dead"]})
    assert (ledger.dead, ledger.faults(may_lose=False)) == (1, [])


@pytest.mark.parametrize(
    ("first", "numbers", "outcomes", "deaths", "reason"),
    [
        ("200", (1, 2), {1: "unknown", 2: "delivered"}, (), UNKNOWN),
        ("200", (1, 2), {1: "answer_timeout", 2: "delivered"}, (), NO_ANSWER),
        ("cut", (1, 2), {1: "broken_answer", 2: "delivered"}, (), NO_ANSWER),
        ("cut", (1, 1), {1: "delivered"}, (), NO_REASON),
        ("200", (1, 2), {1: "delivered", 2: "delivered"}, (), NO_REASON),
        ("200", (1, 2), {2: "delivered"}, (), NO_REASON),
        ("200", (1, 1), {1: "delivered"}, (), NO_REASON),
        ("200", (1, 1), {1: "delivered"}, (11.2,), FORGOTTEN),
        ("200", (1, 1), {1: "delivered"}, (31.2,), NO_REASON),
    ],
)
def test_a_double_is_reported_with_the_reason_that_the_ledger_gives(first, numbers, outcomes, deaths, reason):
    """Without a reason the promise is broken: the ledger must say why."""
    posts = [Post("a", numbers[0], 11.0, first), Post("a", numbers[1], 12.0, "200")]
    ledger = made(posts=posts, entries={"a": Entry("delivered", outcomes)}, deaths=deaths)
    assert ledger.twice == {reason: ["a"]}
    assert bool(ledger.faults(may_lose=False)) == (reason == NO_REASON)


def test_an_earlier_attempt_that_a_frozen_worker_makes_late_is_explained_by_its_lost_lease():
    """Attempt 2 was delivered; then attempt 1 arrived, of which the ledger says that nobody noted it."""
    posts = [Post("a", 2, 11.0, "200"), Post("a", 1, 13.0, "200")]
    for first, reason in (("unknown", UNKNOWN), ("delivered", NO_REASON)):
        ledger = made(posts=posts, entries={"a": Entry("delivered", {1: first, 2: "delivered"})})
        assert dict(ledger.twice) == {reason: ["a"]}


def test_a_double_may_have_two_reasons():
    """Cut off, sent again as the next attempt, and then the worker was killed."""
    posts = [Post("a", 1, 11.0, "cut"), Post("a", 2, 12.0, "200"), Post("a", 3, 15.0, "200")]
    outcomes = {1: "broken_answer", 2: "unknown", 3: "delivered"}
    ledger = made(posts=posts, entries={"a": Entry("delivered", outcomes)})
    assert ledger.twice == {NO_ANSWER: ["a"], UNKNOWN: ["a"]}


def test_a_resend_after_a_failure_is_no_double():
    """The receiver answered 500: it asked for another."""
    posts = [Post("a", 1, 11.0, "500"), Post("a", 2, 12.0, "200")]
    entry = Entry("delivered", {1: "http_error", 2: "delivered"})
    assert made(posts=posts, entries={"a": entry}).twice == {}


@pytest.mark.parametrize("places", [[], ["done", "parked"], ["parked"], ["done", "done"]])
def test_an_id_in_no_place_in_two_or_in_the_wrong_one_is_reported(places):
    """Its record says ``delivered``."""
    ledger = made(places={"a": places})
    assert list(ledger.misplaced) == ["a"]
    assert ledger.faults(may_lose=True) == ["1 in no place or in two: a"]


def test_a_place_without_a_record_is_reported():
    """Nobody could send it."""
    assert made(places={"a": ["done"], "b": ["waiting"]}).misplaced == {"b": ["no record", "waiting"]}


def test_one_set_aside_as_poison_is_reported():
    """Every kill of a run comes from outside: none of them says anything about a postback."""
    ledger = made(entries={"a": Entry("dead", {1: "unknown"}, "poison")}, places={"a": ["dead"]})
    assert ledger.faults(may_lose=True) == ["1 set aside as poison, though every kill came from outside: a"]


def test_one_that_was_delivered_and_is_unknown_to_the_ledger_is_reported():
    """With ``always`` the record cannot have been forgotten."""
    ledger = made(entries={}, places={})
    assert ledger.faults(may_lose=False) == ["1 delivered and unknown to the ledger: a"]


# -- the accounts ----------------------------------------------------------------------------------

#: acme is moved after 20 s, removed after 40, set again after 60 and switched off after 80; each takes a second.
CHANGES = [
    Change("acme", "on", 1), Change("acme", "gone", 1), Change("acme", "on", 2), Change("acme", "off", 2),
]  # fmt: skip
HISTORY = History(
    CHANGES,
    [(str(n), what, str(20 * (n + 1) + (what == "done"))) for n in range(4) for what in ("begun", "done")],
)


@pytest.mark.parametrize(
    ("state", "reason", "ended_s", "explained"),
    [
        ("dead", "unknown_account", 50, True),
        ("dead", "unknown_account", 30, False),
        ("dead", "account_removed", 50, True),
        ("dead", "account_removed", 70, False),
        ("skipped", "origin_off", 90, True),
        ("skipped", "origin_off", 70, False),
        ("dead", "no_url", 50, False),
        ("dead", "http_error", 30, True),
    ],
)
def test_an_end_without_a_delivery_is_explained_by_what_was_done_to_its_account(
    state, reason, ended_s, explained
):
    """Or it is reported."""
    entry = Entry(state, {}, reason, "acme", ended_s)
    assert HISTORY.explains(entry) == explained
    held = Held({"a": entry}, {"a": ["dead" if state == "dead" else "done"]}, {})
    ledger = compare({"a": 1.0}, [], held, explains=HISTORY.explains)
    assert (ledger.dead + ledger.skipped, bool(ledger.faults(may_lose=True))) == (1, not explained)


@pytest.mark.parametrize(
    ("began_s", "generation", "right"),
    [(10, 0, True), (20.5, 0, True), (20.5, 1, True), (30, 0, False), (30, 1, True),
     (50, 1, False), (70, 2, True), (70, 1, False), (90, 2, False)],
)  # fmt: skip
def test_a_post_with_what_its_account_had_before_or_has_no_more_is_reported(began_s, generation, right):
    """While a change is being made either is right; of a removed account none is."""
    entries = {"a": Entry("delivered", {1: "delivered"}, "", "acme", 99, {1: began_s}, "0")}
    posts = [Post("a", 1, began_s, "200", "acme", generation)]
    assert HISTORY.astray(posts, entries, exact=True) == ({} if right else {STALE: ["a"]})


@pytest.mark.parametrize("own", ["0", "1", "2"])
def test_an_unsigned_post_is_reported_unless_its_account_was_never_known(own):
    """A call's own URL needs no account."""
    posts = [Post("a", 1, 1.0, "200", "acme", -1, UNSIGNED)]
    astray = HISTORY.astray(posts, {"a": Entry("delivered", {}, own=own)}, exact=False)
    assert astray == ({} if own == "2" else {UNSIGNED: ["a"]})


def signed(account: str, generation: int, path: str, key: str | None) -> Received:
    """A POST that the account's secret of a generation has signed."""
    at = datetime.now(UTC)
    signature = Webhook(secret_of(account, generation)).sign("a", at, "<xml/>")
    headers = {
        "postback-id": "a", "webhook-id": "a", "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }  # fmt: skip
    return Received(
        1, 0.0, 0.0, "POST", path, headers if key is None else headers | {KEY.lower(): key}, b"<xml/>", 1
    )


def test_a_host_sees_whose_key_and_whose_secret_a_post_was_made_with():
    """Each fault by its own name; a call's own URL is found by its signature."""
    here, there = host_of("acme", 3), host_of("acme", 4)
    right, other = key_of("acme", 3), key_of("acme", 4)
    path = "/acme/3"

    def fault(post: Received, host: int = here) -> str:
        return Judge().judge(host, post).fault

    assert fault(signed("acme", 3, path, right)) == "-"
    assert fault(signed("acme", 3, path, right), there) == WRONG_HOST
    assert fault(signed("acme", 3, path, other)) == fault(signed("acme", 3, path, None)) == WRONG_KEY
    assert fault(signed("acme", 4, path, right)) == WRONG_SIGNATURE
    unsigned = Received(1, 0.0, 0.0, "POST", path, {KEY.lower(): right}, b"<xml/>", 1)
    assert fault(unsigned) == fault(replace(unsigned, path="/own/acme")) == UNSIGNED
    mine = signed("acme", 3, "/own/acme", right)
    assert Judge().judge(here, mine) == ("acme", 3, "-")
    assert fault(mine, there) == WRONG_KEY
    assert fault(signed("acme", 3, "/own/acme", None), there) == "-"
    assert fault(signed("globex", 3, "/own/acme", None), there) == WRONG_SIGNATURE


def test_every_account_is_set_again_at_the_end_of_its_changes():
    """Else what waits for it would be stuck, and no load left to see it."""
    planned = changes(14)
    assert {change.state for change in planned if change} == {"on", "off", "gone"}
    assert [(change.account, change.state) for change in planned[-len(CHANGED) :]] == [
        (name, "on") for name in CHANGED
    ]


# -- the plan ------------------------------------------------------------------------------------


def test_a_seed_repeats_a_plan_and_another_one_makes_another():
    """Every kind is in it; a whole run has at least twenty kills."""
    plan = make_plan(7, 150, 3)
    assert plan == make_plan(7, 150, 3) != make_plan(8, 150, 3)
    assert {fault.kind for fault in plan} == set(KINDS)
    assert sum(fault.kind in KILLS for fault in plan) >= MIN_KILLS
    assert all(0 < fault.at_s < 150 for fault in plan)


# -- what runs of it have found -------------------------------------------------------------------


def test_an_answer_to_an_attempt_that_is_unknown_already_is_not_taken_for_the_next_one(rig):
    """A worker was frozen for longer than its lease, and the same loop claimed the postback again."""
    set_account("acme", url="http://127.0.0.1:2000/")
    (one,) = send_postbacks("acme", [EVENT])
    rig.tick()

    def claim() -> int:
        _, begun, *_ = rig.scripts.claim(
            "frozen", 3000, at_most=1, suspects_max=1, free=100, held_max=0, held_per_lane=1, slow_lanes=()
        )
        return begun[0][3]

    def note(number: int, verdict: str, outcome: str, mood: str) -> bytes:
        attempt = Attempt(number, 1, outcome).to_json()
        row = AttemptRow(one, "acme/general", verdict, number, attempt, 2000, mood, outcome)
        return rig.scripts.commit("frozen", 3000, 10, 60, [row])[0][0]

    assert claim() == 1
    rig.advance(5)
    assert rig.scripts.reap(10, 1000) == 1
    _, begun, _ = rig.scripts.examine("frozen", 3000)
    assert begun[0][3] == 2
    assert note(1, "parked", "http_error", "failed") == b""
    assert rig.record(one).state == "sending"
    assert note(2, "delivered", "delivered", "ok") == b"delivered"
    record = rig.record(one)
    assert [(attempt.number, attempt.outcome) for attempt in record.attempts] == [
        (1, "unknown"),
        (2, "delivered"),
    ]


def test_a_loop_that_cannot_hand_over_finishes_what_is_open(rig):
    """Its slice of time ended while the broker was loading: its answers went unnoted, its postbacks out again."""

    def hand_over() -> None:
        raise OperationalError("Valkey is loading the dataset in memory")

    with Receiver(lambda _: Answer(delay_s=0.5)) as receiver, environment(POSTBACKS_DELIVER_SLICE_S="0.2"):
        set_account("acme", url=receiver.url())
        (one,) = send_postbacks("acme", [EVENT])
        rig.tick()
        assert process.deliver(decide, hand_over) == 1
    assert rig.record(one).state == "delivered"


def test_a_consumer_on_a_half_open_connection_is_dropped_within_seconds():
    """kombu's default of 25 s let two workers be silent for 50 s."""
    from postbacks.app import app

    assert app.conf.broker_transport_options["health_check_interval"] <= 5
