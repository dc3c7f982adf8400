"""Comparison of ``make crash``: it finds each loss, double, stray and unexplained end in lists that were made up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from crash.account_states import STALE, AccountStates
from crash.comparison import (
    FORGOTTEN,
    NO_ANSWER,
    NO_REASON,
    UNKNOWN,
    UNSIGNED,
    WRONG_HOST,
    WRONG_KEY,
    WRONG_SIGNATURE,
    Comparison,
    Entry,
    Held,
    Post,
    compare,
)
from crash.customers import CHANGED, KEY, Change, changes, host_of, key_of, secret_of
from crash.plan import KINDS, MIN_KILLS, kills, make_plan
from crash.receive import Judge
from postbacks.devtools.receiver import Received

DELIVERED = Entry("delivered", {1: "delivered"})


# -- the comparison can fail ----------------------------------------------------------------------


def made(
    *,
    accepted: dict[str, float] | None = None,
    posts: list[Post] | None = None,
    entries: dict[str, Entry] | None = None,
    places: dict[str, list[str]] | None = None,
    deaths: tuple[float, ...] = (),
) -> Comparison:
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
    """A postback was accepted, received and delivered."""
    ledger = made()
    assert (ledger.accepted, ledger.delivered, ledger.dead) == (1, 1, 0)
    assert ledger.violations(may_lose=False) == []


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
        assert ledger.violations(may_lose=bool(deaths)) == ["1 lost: a"]


def test_what_a_dying_broker_had_not_written_is_reported_by_itself():
    """Accepted at 10.0, the broker killed at 11.5."""
    ledger = made(posts=[], entries={}, places={}, deaths=(11.5,))
    assert (ledger.lost, ledger.unsynced) == ([], ["a"])
    assert ledger.violations(may_lose=True) == []
    assert ledger.violations(may_lose=False) == ["1 lost: a"]


@pytest.mark.parametrize("state", ["waiting", "sending", "parked"])
def test_a_stuck_one_is_reported(state):
    """A stuck postback is reported, arrived or not."""
    for posts in ([], [Post("a", 1, 11.0, "200")]):
        ledger = made(posts=posts, entries={"a": Entry(state, {})}, places={"a": [state]})
        assert (ledger.stuck, ledger.lost) == (["a"], [])
        assert ledger.violations(may_lose=True) == ["1 stuck: neither delivered nor dead: a"]


def test_one_left_in_the_queue_is_stuck():
    """A postback in the queue has no record yet."""
    assert made(posts=[], entries={}, places={"a": ["queue"]}).stuck == ["a"]


def test_a_dead_one_is_no_loss():
    """The story of a dead postback stands in the ledger."""
    ledger = made(posts=[], entries={"a": Entry("dead", {1: "http_error"})}, places={"a": ["dead"]})
    assert (ledger.dead, ledger.violations(may_lose=False)) == (1, [])


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
    assert bool(ledger.violations(may_lose=False)) == (reason == NO_REASON)


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
    """The record says ``delivered``, so its id must stand among the done, once."""
    ledger = made(places={"a": places})
    assert list(ledger.misplaced) == ["a"]
    assert ledger.violations(may_lose=True) == ["1 in no place or in two: a"]


def test_a_place_without_a_record_is_reported():
    """Nobody could send it."""
    assert made(places={"a": ["done"], "b": ["waiting"]}).misplaced == {"b": ["no record", "waiting"]}


def test_one_set_aside_as_poison_is_reported():
    """Every kill of a run comes from outside: none of them says anything about a postback."""
    ledger = made(entries={"a": Entry("dead", {1: "unknown"}, "poison")}, places={"a": ["dead"]})
    assert ledger.violations(may_lose=True) == [
        "1 set aside as poison, though every kill came from outside: a"
    ]


def test_one_that_was_delivered_and_is_unknown_to_the_ledger_is_reported():
    """With ``always`` the record cannot have been forgotten."""
    ledger = made(entries={}, places={})
    assert ledger.violations(may_lose=False) == ["1 delivered and unknown to the ledger: a"]


# -- the accounts ----------------------------------------------------------------------------------

#: acme is moved after 20 s, removed after 40, set again after 60 and switched off after 80; each takes a second.
CHANGES = [
    Change("acme", "on", 1), Change("acme", "gone", 1), Change("acme", "on", 2), Change("acme", "off", 2),
]  # fmt: skip
STATES = AccountStates(
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
    assert STATES.explains(entry) == explained
    held = Held({"a": entry}, {"a": ["dead" if state == "dead" else "done"]}, {})
    ledger = compare({"a": 1.0}, [], held, explains=STATES.explains)
    assert (ledger.dead + ledger.skipped, bool(ledger.violations(may_lose=True))) == (1, not explained)


@pytest.mark.parametrize(
    ("began_s", "generation", "right"),
    [(10, 0, True), (20.5, 0, True), (20.5, 1, True), (30, 0, False), (30, 1, True),
     (50, 1, False), (70, 2, True), (70, 1, False), (90, 2, False)],
)  # fmt: skip
def test_a_post_with_what_its_account_had_before_or_has_no_more_is_reported(began_s, generation, right):
    """While a change is being made either is right; of a removed account none is."""
    entries = {"a": Entry("delivered", {1: "delivered"}, "", "acme", 99, {1: began_s}, "0")}
    posts = [Post("a", 1, began_s, "200", "acme", generation)]
    assert STATES.astray(posts, entries, exact=True) == ({} if right else {STALE: ["a"]})


@pytest.mark.parametrize("own", ["0", "1", "2"])
def test_an_unsigned_post_is_reported_unless_its_account_was_never_known(own):
    """A call's own URL needs no account."""
    posts = [Post("a", 1, 1.0, "200", "acme", -1, UNSIGNED)]
    astray = STATES.astray(posts, {"a": Entry("delivered", {}, own=own)}, exact=False)
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
        return Judge().judge(host, post).problem

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
    assert sum(kills(fault.kind) for fault in plan) >= MIN_KILLS
    assert all(0 < fault.at_s < 150 for fault in plan)
