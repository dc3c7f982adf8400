"""The figures that the promise is judged by: waits for a first POST, what is refused, who has been down for an hour."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from events import EVENT, examples
from helpers import Rig, remove_account, set_account
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from promql import selectors

from postbacks import keys, send_postback, send_postbacks
from postbacks.cli import main
from postbacks.client.producer import RedisProducer
from postbacks.delivery.counters import FIRST_POST_BUCKETS_S, WorkerCounters
from postbacks.delivery.profiles import Profiles
from postbacks.devtools.receiver import Answer, Receiver, dead_port
from postbacks.doctor import Doctor
from postbacks.errors import AccountsUnavailable
from postbacks.history.feed import Feed
from postbacks.monitor import health, snapshot
from postbacks.monitor.metrics import SystemCollector
from postbacks.monitor.worker_collector import WorkerCollector

MO, MT = examples()["SMS_MO", "N211"], examples()["SMS_MT", "N202"]
HOUR_S = 3600
#: A bucket that what waited for nothing is in on the busiest machine.
AT_ONCE_S = 10.0
DEPLOY = Path(__file__).parents[2] / "deploy"


class Page:
    """The page of metrics as it is now.

    Args:
        rig: whose broker and clock it is of.
    """

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self._rig = rig
        read = snapshot.read
        monkeypatch.setattr(
            snapshot,
            "read",
            lambda client, settings, **options: read(
                client, settings, **{"clock_offset_ms": rig.scripts.clock_offset_ms, **options}
            ),
        )

    def read(self) -> dict[tuple[str, ...], float]:
        """Name and label values -> value."""
        return {(name, *labels.values()): value for name, labels, value in self.series()}

    def series(self) -> list[tuple[str, dict[str, str], float]]:
        """Name, labels and value of each series; those of a worker's own page behind them."""
        found = []
        for collector in (SystemCollector(self._rig.settings), WorkerCollector(WorkerCounters(1))):
            registry = CollectorRegistry()
            registry.register(collector)
            found += [
                (sample.name, sample.labels, sample.value)
                for family in text_string_to_metric_families(generate_latest(registry).decode())
                for sample in family.samples
            ]
        return found

    def first_posts(self, group: str = "general") -> dict[float, int]:
        """Upper end of a bucket -> first POSTs in it and in none below; empty ones are left out.

        Up to ``AT_ONCE_S`` all are one: how fast this machine is at the moment is no matter.
        """
        page, below, found = self.read(), 0.0, {}
        for bound in (*(bound for bound in FIRST_POST_BUCKETS_S if bound >= AT_ONCE_S), float("inf")):
            text = "+Inf" if bound == float("inf") else str(bound)
            count = page["postbacks_first_post_seconds_bucket", group, text]
            if count > below:
                found[bound] = int(count - below)
            below = count
        return found


@pytest.fixture
def page(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Page:
    """The page of the rig's system."""
    return Page(rig, monkeypatch)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Answers 200; on /bad 500, and on /hang never."""
    answers = {"/bad": Answer(500), "/hang": Answer(action="hang")}
    with Receiver(lambda post: answers.get(post.path, Answer())) as receiver:
        yield receiver


# -- from acceptance to the first POST -------------------------------------------------------------


def test_waits_for_first_posts_are_counted_by_group_on_the_brokers_clock(rig, page, receiver):
    """A postback that waited for forty seconds as no loop ran is in that bucket; a resend is in none."""
    set_account("acme", url=receiver.url())
    send_postbacks("acme", [EVENT] * 3)
    rig.tick()
    rig.deliver()
    assert page.first_posts() == {AT_ONCE_S: 3}
    send_postbacks("acme", [MO, MO, MT])
    rig.tick()
    rig.advance(40)
    rig.deliver()
    assert (page.first_posts("mo"), page.first_posts("mt")) == ({60.0: 2}, {60.0: 1})
    assert page.read()["postbacks_first_post_seconds_sum", "mo"] == pytest.approx(80, abs=20)
    assert page.read()["postbacks_first_post_seconds_count", "mo"] == 2


def test_what_a_loop_takes_before_the_post_begins_is_part_of_the_wait(rig, page, receiver, monkeypatch):
    """An account store that takes its time is not passed over."""
    agree_on = Profiles.agree_on

    def slow(self, claimed):
        time.sleep(0.3)
        return agree_on(self, claimed)

    monkeypatch.setattr(Profiles, "agree_on", slow)
    set_account("acme", url=receiver.url())
    send_postback.delay("acme", EVENT)
    rig.tick()
    rig.deliver()
    assert page.read()["postbacks_first_post_seconds_sum", "general"] >= 0.3


def test_a_first_post_without_an_answer_counts_and_so_does_its_missing_answer(rig, page, receiver):
    """The wait is of the POST's begin; the answer's time is longer than any bucket, not left out."""
    set_account("acme", url=receiver.url("/hang"), answer_timeout_s=1)
    set_account("good", url=receiver.url())
    send_postbacks("acme", [EVENT])
    send_postbacks("good", [EVENT])
    with dead_port() as port:
        set_account("gone", url=f"http://127.0.0.1:{port}/")
        send_postbacks("gone", [EVENT])
        rig.tick()
        rig.deliver()
    assert page.first_posts() == {AT_ONCE_S: 3}
    seen = page.read()
    assert seen["postbacks_attempts_total", "answer_timeout"] == 1
    assert seen["postbacks_answer_seconds_count",] == seen["postbacks_posts_total",] == 3
    assert seen["postbacks_answer_seconds_bucket", "10.0"] == 1
    assert seen["postbacks_answer_seconds_sum",] >= 1


def test_what_waits_behind_a_receiver_that_fails_is_not_counted_until_its_lane_is_empty(rig, page):
    """The receiver was down for ten minutes: neither the probe nor what was held up behind it says anything of us."""
    status = 500
    with Receiver(lambda _: Answer(status)) as receiver:
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [EVENT])
        rig.tick()
        rig.deliver()
        assert page.first_posts() == {AT_ONCE_S: 1}
        send_postbacks("acme", [EVENT] * 30)
        rig.tick()
        rig.advance(600)
        status = 200
        rig.tick()
        while rig.deliver():
            pass
        assert receiver.count == 32
        assert page.first_posts() == {AT_ONCE_S: 1}
        for _ in range(2):  # with the first of them the lane is seen to be empty
            send_postbacks("acme", [EVENT])
            rig.tick()
            rig.deliver()
        assert page.first_posts() == {AT_ONCE_S: 2}


def test_what_waits_for_a_slow_receiver_is_not_counted(rig, page):
    """The receiver answers 200, and late: a minute in its lane may be its own."""
    rig.settings = rig.settings.model_copy(update={"slow_after_s": 0.05})
    with Receiver(lambda _: Answer(delay_s=0.2)) as receiver:
        set_account("acme", url=receiver.url())
        send_postbacks("acme", [EVENT])
        rig.tick()
        rig.deliver()
        send_postbacks("acme", [EVENT] * 2)
        rig.tick()
        rig.advance(60)
        rig.deliver()
        assert receiver.count == 3
    assert page.first_posts() == {AT_ONCE_S: 1}


def test_what_waits_for_its_accounts_own_rate_is_not_counted(rig, page, receiver):
    """The customer asked for one a minute: the first counts, those that the rate keeps back do not."""
    set_account("acme", url=receiver.url(), rate="1/min")
    send_postbacks("acme", [EVENT] * 3)
    for _ in range(3):
        rig.tick()
        rig.deliver()
        rig.advance(61)
    assert receiver.count == 3
    assert sum(page.first_posts().values()) <= 1
    assert max(page.first_posts(), default=0) <= AT_ONCE_S


def test_a_delayed_one_waits_from_the_end_of_its_countdown_and_a_dead_one_from_its_resend(
    rig, page, receiver
):
    """Neither the hour that the caller asked for nor that in which it was dead is a wait."""
    set_account("acme", url=receiver.url())
    send_postback.apply_async(("acme", EVENT), countdown=HOUR_S)
    lost = send_postback.delay("nobody", EVENT)
    rig.tick()
    assert rig.record(lost.id).state == "dead"
    rig.advance(HOUR_S + 20)
    set_account("nobody", url=receiver.url())
    rig.scripts.replay(lost.id)
    look = snapshot.read(rig.client, rig.settings)
    assert look.oldest_waiting_s < 60
    rig.deliver()
    assert receiver.count == 2
    assert page.first_posts() == {AT_ONCE_S: 1, 30.0: 1}


def test_ticks_that_are_missing_are_part_of_the_wait(rig, page, receiver):
    """When a message came is not known: it may have come just after the tick before."""
    set_account("acme", url=receiver.url())
    rig.tick()
    rig.advance(45)
    send_postback.delay("acme", EVENT)
    rig.tick()
    rig.deliver()
    assert page.first_posts() == {60.0: 1}


# -- what is not sent ------------------------------------------------------------------------------


def test_what_is_accepted_skipped_refused_and_put_off_is_counted_by_reason(rig, page, receiver, monkeypatch):
    """Each end without an attempt has its count."""
    rig.settings = rig.settings.model_copy(update={"max_waiting_per_account": 2})
    set_account("acme", url=receiver.url())
    set_account("off", url=receiver.url(), off=["SUB"])
    set_account("moves", url=receiver.url())
    send_postbacks("acme", [EVENT, MT, MT, MT, MO])
    send_postbacks("off", [EVENT, MO])
    send_postbacks("nobody", [EVENT])
    send_postbacks("moves", [EVENT])
    send_postback.apply_async(("acme", EVENT), task_id="one")
    rig.tick()
    send_postback.send_with_celery(("acme", MO), task_id="one", producer=RedisProducer())
    send_postback.send_unchecked(("acme", {"ORIGIN": "SUB"}), {})
    rig.tick()
    set_account("moves", url=receiver.url(), off=["SUB"])

    def away(*_):
        raise AccountsUnavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(Profiles, "agree_on", away)
        rig.deliver()
    seen = page.read()
    assert seen["postbacks_accepted_total", "general"] == 3
    assert seen["postbacks_accepted_total", "mo"] == 2
    assert seen["postbacks_accepted_total", "mt"] == 2
    assert seen["postbacks_skipped_total",] == 2
    refused = {key[1]: count for key, count in seen.items() if key[0] == "postbacks_refused_total" and count}
    assert refused == {"backlog_full": 1, "unknown_account": 1, "id_taken": 1, "unreadable": 1}
    assert seen["postbacks_put_off_total", "account_unusable"] >= 1
    assert "postbacks_first_post_seconds_count" in {key[0] for key in seen}
    assert page.first_posts() == {}
    rig.advance(31)
    rig.tick()
    while rig.deliver():
        pass
    assert sum(sum(page.first_posts(group).values()) for group in keys.GROUPS) == receiver.count == 6


# -- one customer that is down ---------------------------------------------------------------------


def test_a_small_account_that_is_down_for_an_hour_is_seen_and_named(rig, page, receiver):
    """A single postback is enough, though it is dead after half an hour and nothing waits any more; a 200 ends it."""
    set_account("tiny", url=receiver.url("/bad"))
    set_account("gone", url=receiver.url("/bad"))
    set_account("good", url=receiver.url())
    for account in ("tiny", "gone"):
        send_postbacks(account, [EVENT])
    for _ in range(12):
        send_postbacks("good", [EVENT])
        rig.tick()
        rig.deliver()
        assert page.read()["postbacks_accounts_down",] == 0
        rig.advance(301)
    remove_account("gone")
    rig.tick()
    seen = page.read()
    assert seen["postbacks_parked",] == 0
    assert seen["postbacks_accounts_down",] == 1
    assert seen["postbacks_account_down_seconds", "tiny"] == pytest.approx(HOUR_S, abs=30)
    assert ("postbacks_account_down_seconds", "good") not in seen
    noted = Doctor(rig.scripts, rig.settings, pause_s=0).examine().findings("down")
    assert noted == {"tiny": "tiny has taken none for 60 min"}
    set_account("tiny", url=receiver.url())
    send_postbacks("tiny", [EVENT])
    rig.tick()
    rig.deliver()
    assert page.read()["postbacks_accounts_down",] == 0
    assert rig.client.zscore(keys.FAILING, "tiny/general") is None


def test_metrics_health_and_doctor_judge_by_one_snapshot(rig, page, receiver):
    """Postbacks that wait the longest, and since when: a resend counts from the end of its countdown, in all three."""
    set_account("slow", url=receiver.url("/bad"))
    set_account("acme", url=receiver.url())
    send_postbacks("slow", [EVENT])
    rig.tick()
    rig.deliver()
    rig.advance(301)
    rig.tick()
    send_postbacks("acme", [MO])
    rig.tick()
    rig.advance(100)
    seen = page.read()
    assert seen["postbacks_oldest_waiting_seconds", "false", "mo"] == pytest.approx(100, abs=20)
    assert seen["postbacks_oldest_waiting_seconds", "true", "general"] == pytest.approx(101, abs=20)
    found = Doctor(rig.scripts, rig.settings, pause_s=0).examine().findings("oldest-waiting")
    assert set(found) == {"general", "mo"}
    assert re.fullmatch(r"mo: for 1[0-1]\d s, in acme/mo", found["mo"])
    assert re.fullmatch(r"general: for 1[0-1]\d s, in slow/general", found["general"])
    assert health.judge(rig.settings).oldest_waiting_s == pytest.approx(100, abs=20)


def test_health_names_who_is_down(rig, receiver):
    """All is well with us, and the line says whose every attempt has failed."""
    rig.advance(-1.5 * HOUR_S)
    set_account("tiny", url=receiver.url("/bad"))
    send_postbacks("tiny", [EVENT])
    rig.tick()
    rig.deliver()
    rig.advance(1.5 * HOUR_S)
    rig.tick()
    said = CliRunner().invoke(main, ["health"], prog_name="postbacks")
    assert said.exit_code == 0, said.output
    assert said.output.endswith("; every attempt has failed: tiny for 1 h 30 min\n")


def test_lanes_that_nobody_sends_to_any_more_are_forgotten(rig, receiver):
    """The set of failing lanes does not grow for ever: what is no longer known goes as others begin to fail."""
    left = 40  # so many that among those looked at, which are any, is one of them
    rig.client.zadd(keys.FAILING, {f"left{number}/mo": 1 for number in range(left)})
    for number in range(40):
        set_account(f"bad{number}", url=receiver.url("/bad"))
        send_postbacks(f"bad{number}", [EVENT])
    rig.tick()
    rig.deliver()
    assert rig.client.zcard(keys.FAILING) < 40 + left
    assert snapshot.read(rig.client, rig.settings).down == {}


# -- who asks for the figures ----------------------------------------------------------------------


def test_each_query_of_the_dashboard_and_of_the_alerts_finds_series(rig, page, receiver):
    """By name, label and value: a reason, an outcome or a bucket that is misspelt would be a line at nought for ever."""
    set_account("tiny", url=receiver.url("/bad"))
    feed = Feed(rig.client)
    feed.register()
    feed.acquire("a recorder", 10_000)
    feed.note("a recorder", json.dumps({"rows": 1, "disk_bytes": 4096}))
    send_postbacks("tiny", [EVENT])
    rig.tick()
    rig.deliver()
    rig.advance(2 * HOUR_S)
    panels = json.loads((DEPLOY / "grafana" / "postbacks.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    queries += [rule["expr"] for group in groups for rule in group["rules"]]
    series = page.series()
    empty = {
        selector
        for query in queries
        for selector in selectors(query)
        if not any(selector.selects(name, labels) for name, labels, _ in series)
    }
    assert empty == set()
    assert len(queries) > 50
    assert not selectors('a{b="c"}')
    (misspelt,) = selectors('postbacks_waiting{failing="no"}')
    assert not any(misspelt.selects(name, labels) for name, labels, _ in series)
