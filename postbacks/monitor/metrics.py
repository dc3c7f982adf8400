"""Metrics for Prometheus, as tables over the snapshot. docs/monitoring.md lists every name; a test compares."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from postbacks import keys
from postbacks.broker.client import client_for
from postbacks.delivery import counters
from postbacks.errors import BrokerError
from postbacks.history.status import CATCHING_UP, OFF, ON, RESYNC, UNKNOWN
from postbacks.logs import EventLog
from postbacks.monitor import snapshot
from postbacks.monitor.health import with_timeout
from postbacks.printable import printable
from postbacks.queue import counter_names
from postbacks.transport.outcomes import OUTCOMES
from postbacks.version import VERSION

if TYPE_CHECKING:
    from postbacks.history.status import FeedStatus
    from postbacks.monitor.snapshot import Snapshot
    from postbacks.settings import Settings

log = EventLog(__name__)

#: Seconds for which a reading serves all who ask: many scrapers cost the broker no more than one.
FRESH_S: Final = 1.0
#: Seconds that a reading may take in all.
WITHIN_S: Final = 4.0


def gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """Return a gauge without labels; without a sample where there is no value."""
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def gauge_by_label(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """Return a gauge with one label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def counter(name: str, text: str, value: float) -> CounterMetricFamily:
    """Return a counter without labels."""
    family = CounterMetricFamily(name, text)
    family.add_metric([], value)
    return family


def counter_by_label(name: str, text: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    """Return a counter with one label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def build_info() -> GaugeMetricFamily:
    """Return the version that serves a page, and its Python."""
    family = GaugeMetricFamily(
        "postbacks_build_info", "The version that serves this page.", labels=["version", "python"]
    )
    family.add_metric([VERSION, platform.python_version()], 1)
    return family


#: Counters of attempts, of the system or of one worker: the end of the name, the text, and the name in the totals.
_ATTEMPT_COUNTERS: Final = (
    ("posts", "Attempts that were POSTs of their own", counter_names.POSTS),
    ("connections_opened", "Connections opened for POSTs", counter_names.CONNECTIONS),
    ("renewals", "Requests that a kept connection's end crossed and that were sent again at once", counter_names.RENEWALS),
    ("given_up", "Postbacks given up after their last resend, or as poison", counter_names.DEAD),
)  # fmt: skip


def attempts(prefix: str, totals: Mapping[str, int], of_whom: str) -> Iterator[Metric]:
    """Yield what is counted of attempts: outcomes, answer times, waits, POSTs and their connections, renewals."""
    yield counter_by_label(
        f"{prefix}_attempts",
        f"Attempts by outcome, {of_whom}.",
        "outcome",
        {outcome: totals.get(counter_names.ATTEMPT + outcome, 0) for outcome in OUTCOMES},
    )
    answers = HistogramMetricFamily(
        f"{prefix}_answer_seconds",
        f"From the begin of a POST to the whole header of its answer, {of_whom}; +Inf alone where none came.",
    )
    buckets = _buckets(totals, counter_names.ANSWER, counters.ANSWER_BUCKETS_S)
    answers.add_metric([], buckets, sum_value=totals.get(counter_names.ANSWER_MS, 0) / 1000)
    yield answers
    first_posts = HistogramMetricFamily(
        f"{prefix}_first_post_seconds",
        f"From acceptance to the begin of the first POST, for receivers that work, {of_whom}.",
        labels=["group"],
    )
    for group in keys.GROUPS:
        buckets = _buckets(totals, f"{counter_names.FIRST_POST}{group}:", counters.FIRST_POST_BUCKETS_S)
        first_posts.add_metric(
            [group], buckets, sum_value=totals.get(counter_names.FIRST_POST_MS + group, 0) / 1000
        )
    yield first_posts
    for name, text, total in _ATTEMPT_COUNTERS:
        yield counter(f"{prefix}_{name}", f"{text}, {of_whom}.", totals.get(total, 0))


def _buckets(totals: Mapping[str, int], name: str, bounds_s: tuple[float, ...]) -> list[tuple[str, float]]:
    """Add up the buckets of a histogram, as Prometheus has them: each with all that is below."""
    sum_below, buckets = 0, []
    for number, bound in enumerate([*map(str, bounds_s), "+Inf"]):
        sum_below += totals.get(f"{name}{number}", 0)
        buckets.append((bound, float(sum_below)))
    return buckets


#: Gauges without labels: name, text, and value by a snapshot.
_GAUGES: Final[tuple[tuple[str, str, Callable[[Snapshot], float | None]], ...]] = (
    ("postbacks_standing_still", "Postbacks that wait for accounts for which nothing can be sent.",
     lambda now: now.still_waiting),
    ("postbacks_accounts_paused", "Accounts that somebody has paused.", lambda now: now.accounts_paused),
    ("postbacks_paused", "Postbacks that wait for accounts that are paused.", lambda now: now.paused_waiting),
    ("postbacks_paused_oldest_seconds", "Since the longest waiting of them was accepted; 0 where none waits.",
     lambda now: now.oldest_paused_s),
    ("postbacks_not_taken_in", "Messages in Celery's queue and the intake, before the tick.",
     lambda now: now.not_taken_in),
    ("postbacks_wake_ups_waiting", "Messages in the workers' queue.", lambda now: now.work),
    ("postbacks_in_flight", "Postbacks whose POST may be open.", lambda now: now.in_flight),
    ("postbacks_claimed", "Postbacks in claims: in flight, or held behind a probe.", lambda now: now.claimed),
    ("postbacks_quarantined", "Postbacks that were in flight when their process died and are tried with care.",
     lambda now: now.quarantined),
    ("postbacks_endpoints_starting",
     "Endpoints that have failed to connect and have not yet taken enough connections since.",
     lambda now: now.starting),
    ("postbacks_parked", "Postbacks that wait for a countdown.", lambda now: now.parked),
    ("postbacks_parked_overdue_seconds",
     "Since when the first parked one should have been released; 0 where none is late.",
     lambda now: now.parked_overdue_s),
    ("postbacks_dead", "Dead postbacks that the ledger keeps.", lambda now: now.dead),
    ("postbacks_done", "Delivered, skipped and cancelled postbacks that the ledger keeps.", lambda now: now.done),
    ("postbacks_workers", "Workers that give signs of life.", lambda now: len(now.workers.names)),
    ("postbacks_beats", "Beats that give signs of life.", lambda now: len(now.beats.names)),
    ("postbacks_last_tick_age_seconds", "Since a tick last finished.", lambda now: now.tick_age_s),
    ("postbacks_broker_takes_writes", "Whether the broker would take a postback now.", lambda now: not now.refusal),
    ("postbacks_broker_memory_bytes", "Memory that the broker uses.", lambda now: now.used_memory_bytes),
    ("postbacks_broker_memory_limit_bytes", "Its maxmemory; without one the machine's.",
     lambda now: now.max_memory_bytes),
    ("postbacks_ledger_bytes", "Memory that records take in it, estimated.", lambda now: now.ledger_bytes),
    ("postbacks_accounts_down", "Accounts with a lane of which every attempt has failed for an hour.",
     lambda now: len(now.down)),
    ("postbacks_scrape_complete", "0 where more accounts have postbacks than are looked at.",
     lambda now: now.complete),
    ("postbacks_scrape_seconds", "That the reading took.", lambda now: now.took_s),
)  # fmt: skip

#: Gauges of the history, where there is one: name, text, and value by what the broker knows of it.
_HISTORY_GAUGES: Final[tuple[tuple[str, str, Callable[[FeedStatus], float | None]], ...]] = (
    ("postbacks_history_on", "Whether the feed of the history is on.", lambda feed: feed.state != OFF),
    ("postbacks_history_up", "Whether a recorder works: it holds its lease, and does not wait for its database.",
     lambda feed: feed.state in {ON, CATCHING_UP, RESYNC}),
    ("postbacks_history_lag_seconds", "Age of the oldest change that history does not have; 0 where it has all.",
     lambda feed: feed.lag_s),
    ("postbacks_history_recorder_age_seconds", "Since a recorder gave its last sign.",
     lambda feed: None if feed.seen_ms is None or feed.now_ms is None else (feed.now_ms - feed.seen_ms) / 1000),
    ("postbacks_history_feed_entries", "Entries of the feed that are not recorded.", lambda feed: feed.entries),
    ("postbacks_history_feed_bytes", "Memory of the broker that the feed takes.", lambda feed: feed.bytes),
    ("postbacks_history_resync_wanted", "Whether a resync is wanted or under way.", lambda feed: bool(feed.resync)),
    ("postbacks_history_rows", "Postbacks in the history, as its recorder last counted them.", lambda feed: feed.rows),
    ("postbacks_incidents_open", "Incidents that are open, as the recorder last counted them.",
     lambda feed: feed.open_incidents),
    ("postbacks_opt_outs_late",
     "Opt-outs that are not delivered POSTBACKS_OPT_OUT_LATE_S after their acceptance, as the recorder last counted them.",
     lambda feed: feed.late_opt_outs),
    ("postbacks_opt_outs_oldest_late_seconds", "Age of the oldest of them; 0 where none is.",
     lambda feed: None if feed.late_opt_outs is None else _age_s(feed.oldest_late_opt_out_ms, feed.now_ms)),
    ("postbacks_history_disk_bytes", "Disk that its database takes, as its recorder last measured it.",
     lambda feed: feed.disk_bytes),
)  # fmt: skip


def _age_s(since_ms: int | None, now_ms: int | None) -> float:
    return 0.0 if since_ms is None or now_ms is None else max(0.0, (now_ms - since_ms) / 1000)


#: Counters without labels: name, text, and name in the totals.
_COUNTERS: Final = (
    ("postbacks_ticks", "Ticks that finished.", counter_names.TICKS),
    ("postbacks_late_ticks", "Ticks that finished more than 2.5 s after the one before.", counter_names.LATE_TICKS),
    ("postbacks_skipped", "Postbacks that ended as their account has switched their origin off.", counter_names.SKIPPED),
    ("postbacks_ids_taken", "Postbacks kept as dead because another one had their id.", counter_names.ID_TAKEN),
    ("postbacks_unrouted", "Postbacks that came for an account that was not known, or without a URL.",
     counter_names.UNROUTED),
    ("postbacks_unrouted_of_left", "Of them those of accounts that were removed within a week.",
     counter_names.UNROUTED_OF_LEFT),
    ("postbacks_unrouted_dropped",
     "Of them those dropped before their retention, as they took more than their share of the ledger.",
     counter_names.UNROUTED_DROPPED),
    ("postbacks_unrecorded_dropped",
     "Postbacks dropped for want of memory that the history, where there is one, had not recorded.",
     counter_names.UNRECORDED_DROPPED),
    ("postbacks_stubs", "Postbacks of which no document was kept, as too many of their account wait and are dead.",
     counter_names.STUBS),
)  # fmt: skip

#: Counters with one label: name, text, label, and name in the totals by the label's value.
_LABELLED_COUNTERS: Final = (
    ("postbacks_accepted", "Postbacks taken in that are to be sent, by group.", "group",
     {group: counter_names.ACCEPTED + group for group in keys.GROUPS}),
    ("postbacks_refused", "Postbacks that are dead without an attempt, by reason.", "reason",
     {**{reason: counter_names.REFUSED + reason for reason in counter_names.REFUSALS}, counter_names.ID_TAKEN: counter_names.ID_TAKEN}),
    ("postbacks_put_off", "Times that a claimed postback was put off before its POST, no attempt counted, by reason.",
     "reason", {reason: counter_names.PUT_OFF + reason for reason in counter_names.PUT_OFFS}),
    ("postbacks_dropped_early",
     "Postbacks dropped before their retention: done or dead ones to make room in the broker, dead ones by hand or past their account's share.",
     "what",
     {"done": counter_names.EARLY_DONE, "dead": counter_names.EARLY_DEAD, "asked": counter_names.ASKED_DROPPED,
      "share": counter_names.SHARE_DROPPED}),
)  # fmt: skip


class SystemCollector(Collector):
    """Metrics of the whole system, of a snapshot that is read when they are asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._snapshot: Snapshot | None = None

    def describe(self) -> Iterable[Metric]:
        """Describe nothing, so that registering asks no broker."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; where the broker does not answer in time, only that and the version."""
        now = self._fresh()
        yield build_info()
        yield gauge("postbacks_broker_up", "Whether the broker could be asked.", now is not None)
        if now is not None:
            yield from _system(now, self._settings)

    def _fresh(self) -> Snapshot | None:
        with self._lock:
            if time.monotonic() - self._read_s >= FRESH_S:
                settings = self._settings
                try:
                    client = client_for(settings.broker_url, settings.broker_timeout_s)
                    self._snapshot = with_timeout(WITHIN_S, lambda: snapshot.read(client, settings), settings)
                except BrokerError as error:
                    if self._snapshot is not None or self._read_s == float("-inf"):
                        log.warning("metrics.broker_lost", str(error))
                    self._snapshot = None
                self._read_s = time.monotonic()
            return self._snapshot


def _system(now: Snapshot, settings: Settings) -> Iterator[Metric]:
    yield from _waiting(now)
    for name, text, value_of in _GAUGES:
        yield gauge(name, text, value_of(now))
    yield gauge_by_label(
        "postbacks_claimers",
        "Delivering loops, by whether their lease stands.",
        "lease",
        {"standing": now.loops, "expired": now.loops_expired},
    )
    for name, text, total in _COUNTERS:
        yield counter(name, text, now.totals.get(total, 0))
    for name, text, label, totals in _LABELLED_COUNTERS:
        values = {value: now.totals.get(total, 0) for value, total in totals.items()}
        yield counter_by_label(name, text, label, values)
    if now.history is not None and now.history.state != UNKNOWN:
        yield from _history(now.history, now, settings)
    yield from attempts("postbacks", now.totals, "of all workers")
    yield gauge(
        "postbacks_ledger_limit_bytes",
        "Past which delivered records are dropped early.",
        int(now.max_memory_bytes * settings.ledger_memory_share),
    )
    yield gauge_by_label(
        "postbacks_account_open",
        "Postbacks that wait, are sent or are parked, of the accounts that have the most.",
        "account",
        {printable(account): count for account, count in now.accounts},
    )
    yield gauge_by_label(
        "postbacks_account_down_seconds",
        "Since when every attempt of a lane of theirs has failed, of those that have been down for the longest.",
        "account",
        {
            printable(account): down_s
            for account, down_s in list(now.down.items())[: settings.metrics_top_accounts]
        },
    )


def _history(feed: FeedStatus, now: Snapshot, settings: Settings) -> Iterator[Metric]:
    """Yield what the broker knows of the history; its database is not asked, so that none can hold a scrape up."""
    for name, text, value_of in _HISTORY_GAUGES:
        yield gauge(name, text, value_of(feed))
    yield gauge(
        "postbacks_history_feed_limit_bytes",
        "Past which its oldest entries are dropped unread.",
        int(now.max_memory_bytes * settings.history_feed_share),
    )
    yield counter("postbacks_history_gaps", "Times that entries of the feed were dropped unread.", feed.gaps)


def _waiting(now: Snapshot) -> Iterator[Metric]:
    count = GaugeMetricFamily(
        "postbacks_waiting",
        "Postbacks that wait in lanes, by group and by whether the lane's last POST failed.",
        labels=["group", "failing"],
    )
    oldest = GaugeMetricFamily(
        "postbacks_oldest_waiting_seconds",
        "Since when the longest waiting one could be sent, by group and by whether the lane's last POST failed.",
        labels=["group", "failing"],
    )
    for part in now.waiting:
        labels = [part.group, "true" if part.failing else "false"]
        count.add_metric(labels, part.count)
        oldest.add_metric(labels, part.oldest_s)
    yield count
    yield oldest
