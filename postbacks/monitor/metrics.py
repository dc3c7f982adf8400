"""The figures as Prometheus wants them. docs/monitoring.md lists every name; a test compares."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterable, Iterator
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
from postbacks.logs import EventLog
from postbacks.monitor import figures
from postbacks.monitor.health import within
from postbacks.printable import plain
from postbacks.queue import counter_names
from postbacks.transport.outcomes import OUTCOMES
from postbacks.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postbacks.monitor.figures import Figures
    from postbacks.settings import Settings

log = EventLog(__name__)

#: Seconds for which a reading serves all who ask: many scrapers cost the broker no more than one.
FRESH_S: Final = 1.0
#: Seconds that a reading may take in all.
WITHIN_S: Final = 4.0


def gauge(name: str, what: str, value: float | None = None) -> GaugeMetricFamily:
    """Return a gauge without labels."""
    family = GaugeMetricFamily(name, what)
    if value is not None:
        family.add_metric([], value)
    return family


def counter(name: str, what: str, value: float) -> CounterMetricFamily:
    """Return a counter without labels."""
    family = CounterMetricFamily(name, what)
    family.add_metric([], value)
    return family


def by_label(name: str, what: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    """Return a counter with one label."""
    family = CounterMetricFamily(name, what, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def build_info() -> GaugeMetricFamily:
    """Return which version serves a page, on which Python."""
    family = GaugeMetricFamily(
        "postbacks_build_info", "The version that serves this page.", labels=["version", "python"]
    )
    family.add_metric([VERSION, platform.python_version()], 1)
    return family


def _buckets(totals: Mapping[str, int], name: str, bounds_s: tuple[float, ...]) -> list[tuple[str, float]]:
    """Add up the buckets of a histogram, as Prometheus has them: each with all that is below."""
    so_far, buckets = 0, []
    for number, bound in enumerate([*map(str, bounds_s), "+Inf"]):
        so_far += totals.get(f"{name}{number}", 0)
        buckets.append((bound, float(so_far)))
    return buckets


def attempts(prefix: str, totals: Mapping[str, int], of_whom: str) -> Iterator[Metric]:
    """Return what is counted of attempts: outcomes, answer times, waits, POSTs and their connections, renewals."""
    yield by_label(
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
    yield counter(
        f"{prefix}_posts",
        f"Attempts that were POSTs of their own, {of_whom}.",
        totals.get(counter_names.POSTS, 0),
    )
    yield counter(
        f"{prefix}_connections_opened",
        f"Connections opened for POSTs, {of_whom}.",
        totals.get(counter_names.CONNECTIONS, 0),
    )
    yield counter(
        f"{prefix}_renewals",
        f"Requests that a kept connection's end crossed and that were sent again at once, {of_whom}.",
        totals.get(counter_names.RENEWALS, 0),
    )
    yield counter(
        f"{prefix}_given_up",
        f"Postbacks given up after their last resend, or as poison, {of_whom}.",
        totals.get(counter_names.DEAD, 0),
    )


class SystemCollector(Collector):
    """The whole system's figures, read from the broker when they are asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._figures: Figures | None = None

    def describe(self) -> Iterable[Metric]:
        """Describe nothing, so that registering asks no broker."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the figures; where the broker does not answer in time, only that and the version."""
        found = self._fresh()
        yield build_info()
        yield gauge("postbacks_broker_up", "Whether the broker could be asked.", found is not None)
        if found is not None:
            yield from _system(found, self._settings)

    def _fresh(self) -> Figures | None:
        with self._lock:
            if time.monotonic() - self._read_s >= FRESH_S:
                settings = self._settings
                try:
                    client = client_for(settings.broker_url, settings.broker_timeout_s)
                    self._figures = within(WITHIN_S, lambda: figures.read(client, settings), settings)
                except BrokerError as error:
                    if self._figures is not None or self._read_s == float("-inf"):
                        log.warning("metrics.broker_lost", str(error))
                    self._figures = None
                self._read_s = time.monotonic()
            return self._figures


def _system(found: Figures, settings: Settings) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "postbacks_waiting",
        "Postbacks that wait in lanes, by group and by whether the lane's last POST failed.",
        labels=["group", "failing"],
    )
    oldest = GaugeMetricFamily(
        "postbacks_oldest_waiting_seconds",
        "Since when the longest waiting one could be sent, by group and by whether the lane's last POST failed.",
        labels=["group", "failing"],
    )
    for one in found.waiting:
        labels = [one.group, "true" if one.failing else "false"]
        waiting.add_metric(labels, one.count)
        oldest.add_metric(labels, one.oldest_s)
    yield waiting
    yield oldest
    yield gauge(
        "postbacks_standing_still",
        "Postbacks that wait for accounts for which nothing can be sent.",
        found.still,
    )
    yield gauge(
        "postbacks_not_taken_in",
        "Messages in Celery's queue and the intake, before the tick.",
        found.not_taken_in,
    )
    yield gauge("postbacks_wake_ups_waiting", "Messages in the workers' queue.", found.work)
    yield gauge("postbacks_in_flight", "Postbacks whose POST may be open.", found.in_flight)
    yield gauge("postbacks_claimed", "Postbacks in claims: in flight, or held behind a probe.", found.claimed)
    yield gauge(
        "postbacks_quarantined",
        "Postbacks that were in flight when their process died and are tried with care.",
        found.quarantined,
    )
    yield gauge(
        "postbacks_endpoints_starting",
        "Endpoints that have failed to connect and have not yet taken enough connections since.",
        found.starting,
    )
    yield gauge("postbacks_parked", "Postbacks that wait for a countdown.", found.parked)
    yield gauge(
        "postbacks_parked_overdue_seconds",
        "Since when the first parked one should have been released; 0 where none is late.",
        found.parked_overdue_s,
    )
    yield gauge("postbacks_dead", "Dead postbacks that the ledger keeps.", found.dead)
    yield gauge(
        "postbacks_done", "Delivered, skipped and cancelled postbacks that the ledger keeps.", found.done
    )
    claimers = GaugeMetricFamily(
        "postbacks_claimers", "Delivering loops, by whether their lease stands.", labels=["lease"]
    )
    claimers.add_metric(["standing"], found.claimers)
    claimers.add_metric(["expired"], found.claimers_expired)
    yield claimers
    yield gauge("postbacks_workers", "Workers that give signs of life.", len(found.workers.names))
    yield gauge("postbacks_beats", "Beats that give signs of life.", len(found.beats.names))
    yield gauge("postbacks_last_tick_age_seconds", "Since a tick last finished.", found.tick_age_s)
    yield counter("postbacks_ticks", "Ticks that finished.", found.totals.get(counter_names.TICKS, 0))
    yield counter(
        "postbacks_late_ticks",
        "Ticks that finished more than 2.5 s after the one before.",
        found.totals.get(counter_names.LATE_TICKS, 0),
    )
    yield by_label(
        "postbacks_accepted",
        "Postbacks taken in that are to be sent, by group.",
        "group",
        {group: found.totals.get(counter_names.ACCEPTED + group, 0) for group in keys.GROUPS},
    )
    yield counter(
        "postbacks_skipped",
        "Postbacks that ended as their account has switched their origin off.",
        found.totals.get(counter_names.SKIPPED, 0),
    )
    refused = {
        reason: found.totals.get(counter_names.REFUSED + reason, 0) for reason in counter_names.REFUSALS
    }
    yield by_label(
        "postbacks_refused",
        "Postbacks that are dead without an attempt, by reason.",
        "reason",
        refused | {counter_names.ID_TAKEN: found.totals.get(counter_names.ID_TAKEN, 0)},
    )
    yield by_label(
        "postbacks_put_off",
        "Times that a claimed postback was put off before its POST, no attempt counted, by reason.",
        "reason",
        {reason: found.totals.get(counter_names.PUT_OFF + reason, 0) for reason in counter_names.PUT_OFFS},
    )
    yield counter(
        "postbacks_ids_taken",
        "Postbacks kept as dead because another one had their id.",
        found.totals.get(counter_names.ID_TAKEN, 0),
    )
    yield counter(
        "postbacks_unrouted",
        "Postbacks that came for an account that was not known, or without a URL.",
        found.totals.get(counter_names.UNROUTED, 0),
    )
    yield counter(
        "postbacks_unrouted_of_left",
        "Of them those of accounts that were removed within a week.",
        found.totals.get(counter_names.UNROUTED_OF_LEFT, 0),
    )
    yield counter(
        "postbacks_unrouted_dropped",
        "Of them those dropped before their retention, as they took more than their share of the ledger.",
        found.totals.get(counter_names.UNROUTED_DROPPED, 0),
    )
    early = {
        "done": counter_names.EARLY_DONE,
        "dead": counter_names.EARLY_DEAD,
        "asked": counter_names.ASKED_DROPPED,
        "share": counter_names.SHARE_DROPPED,
    }
    yield by_label(
        "postbacks_dropped_early",
        "Postbacks dropped before their retention: done or dead ones to make room in the broker, dead ones by hand or past their account's share.",
        "what",
        {what: found.totals.get(name, 0) for what, name in early.items()},
    )
    yield counter(
        "postbacks_stubs",
        "Postbacks of which no document was kept, as too many of their account wait and are dead.",
        found.totals.get(counter_names.STUBS, 0),
    )
    yield from attempts("postbacks", found.totals, "of all workers")
    yield gauge(
        "postbacks_broker_takes_writes",
        "Whether the broker would take a postback now.",
        not found.refusal,
    )
    yield gauge("postbacks_broker_memory_bytes", "Memory that the broker uses.", found.used_memory_bytes)
    yield gauge(
        "postbacks_broker_memory_limit_bytes",
        "Its maxmemory; without one the machine's.",
        found.max_memory_bytes,
    )
    yield gauge("postbacks_ledger_bytes", "Memory that records take in it, estimated.", found.ledger_bytes)
    yield gauge(
        "postbacks_ledger_limit_bytes",
        "Past which delivered records are dropped early.",
        int(found.max_memory_bytes * settings.ledger_memory_share),
    )
    accounts = GaugeMetricFamily(
        "postbacks_account_open",
        "Postbacks that wait, are sent or are parked, of the accounts that have the most.",
        labels=["account"],
    )
    for name, count in found.accounts:
        accounts.add_metric([plain(name)], count)
    yield accounts
    yield gauge(
        "postbacks_accounts_down",
        "Accounts with a lane of which every attempt has failed for an hour.",
        found.down,
    )
    down = GaugeMetricFamily(
        "postbacks_account_down_seconds",
        "Since when every attempt of a lane of theirs has failed, of those that have been down for the longest.",
        labels=["account"],
    )
    for name, seconds in found.down_longest:
        down.add_metric([plain(name)], seconds)
    yield down
    yield gauge(
        "postbacks_scrape_complete",
        "0 where more accounts have postbacks than are looked at.",
        found.complete,
    )
    yield gauge("postbacks_scrape_seconds", "That the reading took.", found.took_s)
