"""Latency under a steady load, alone and while other accounts are in trouble."""

from __future__ import annotations

import socket
import statistics
import time

from benchmarks import fill, load
from benchmarks.receiving import Receiver
from benchmarks.scenario import Bench, Row, environment, until
from benchmarks.systems import Ours
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.operate import pause_account, paused_accounts

ACCOUNTS = 100
HEALTHY, SILENT = 400, 600
#: Accounts that are paused, and what waits for each.
PAUSED, PAUSED_EACH = 500, 200
#: 10% of all hang, 10% refuse, 10% answer 500.
TROUBLED = HEALTHY // 7
#: Postbacks a second of every account, troubled ones too.
EACH_PER_S = 0.5
HIGHEST = 200_000
#: A generator that begins its calls later than that measures itself.
GENERATOR_LATE_S = 0.1
#: Where the numbers of troubled accounts' postbacks begin, out of the healthy ones' way.
TROUBLE_FROM = 100_000


def latency(bench: Bench) -> list[Row]:
    """100 and 1,000 a second."""
    rows: list[Row] = []
    seconds = 4 if bench.quick else 15
    with EmbeddedBroker() as broker, Receiver(HIGHEST) as receiver, environment(broker.url) as env:
        names = [f"a{number}" for number in range(ACCOUNTS)]
        fill.set_accounts(names, receiver.url)
        with Ours(broker, env, bench.folder):
            warm = load.steady(names, 0, 100, 2)
            receiver.wait_for(len(warm.at_s), 20)
            for per_s, p50_max_s, p99_max_s in ((100, 0.6, 1.15), (1_000, None, 1.5)):
                receiver.ask("reset")
                sent = load.steady(names, 0, per_s, seconds)
                receiver.wait_for(len(sent.at_s), 30)
                receiver.check(range(len(sent.at_s)))
                one = load.shown(sent.latencies(receiver), sent)
                bench.say(f"{per_s}/s: {one}")
                late = f"the generator was {one['generator_p99_late_s'] * 1000:.0f} ms late at p99"
                target = f"p99 at most {p99_max_s} s" + (f", p50 at most {p50_max_s} s" if p50_max_s else "")
                kept_up = one["generator_p99_late_s"] <= GENERATOR_LATE_S
                if not kept_up:
                    late = f"not valid: {late}"
                rows.append(
                    Row(
                        f"latency from `.delay()` to arrival, {per_s:,}/s steady",
                        target,
                        f"p50 {one['p50_s']:.2f} s, p99 {one['p99_s']:.2f} s ({late})",
                        one["p99_s"] <= p99_max_s and (p50_max_s is None or one["p50_s"] <= p50_max_s)
                        if kept_up
                        else None,
                        one,
                    )
                )
    return rows


def isolation(bench: Bench) -> list[Row]:
    """The same healthy load in one run of one worker: alone, with paused, with troubled and with silent accounts."""
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(1 if bench.quick else 2):
        if number and bench.spent > 0.55:
            break
        one = _round(bench, 4 if bench.quick else 12)
        rounds.append(one)
        bench.say(
            "healthy p99: " + ", ".join(f"{name} {value['p99_s']:.3f} s" for name, value in one.items())
        )
    alone = statistics.median(one["alone"]["p99_s"] for one in rounds)
    rows = []
    for name, what, at_most in (
        ("silent", f"while {SILENT} accounts are silent, of {HEALTHY + SILENT:,}", 1.2),
        ("paused", f"while {PAUSED * PAUSED_EACH:,} postbacks of {PAUSED} paused accounts wait", 1.1),
        ("trouble", "while 10% of accounts hang for 10 s, 10% refuse, 10% answer 500", 1.1),
    ):
        ratio = statistics.median(one[name]["p99_s"] / one["alone"]["p99_s"] for one in rounds)
        with_s = statistics.median(one[name]["p99_s"] for one in rounds)
        rows.append(
            Row(
                f"healthy accounts' p99 {what}",
                f"at most {at_most} times its value without them",
                f"{ratio:.2f} times ({with_s:.2f} s beside {alone:.2f} s)",
                ratio <= at_most,
                {"ratio": ratio, "rounds": rounds},
            )
        )
    return rows


def _round(bench: Bench, seconds: float) -> dict[str, dict[str, float]]:
    healthy = [f"h{number}" for number in range(HEALTHY)]
    silent = [f"s{number}" for number in range(SILENT)]
    paused = [f"p{number}" for number in range(PAUSED)]
    troubled = {f"{kind}{number}": kind for kind in ("hang", "refuse", "500") for number in range(TROUBLED)}
    found: dict[str, dict[str, float]] = {}
    with (
        EmbeddedBroker() as broker,
        Receiver(HIGHEST) as receiver,
        socket.socket() as refusing,
        environment(broker.url) as env,
    ):
        refusing.bind(("127.0.0.1", 0))  # and never listens: connections are refused at once
        port = refusing.getsockname()[1]
        fill.set_accounts(healthy, receiver.url)
        fill.set_accounts(silent, lambda number: receiver.url(HEALTHY + number, "hang"))
        fill.set_accounts(paused, receiver.url)
        names = list(troubled)

        def trouble_url(number: int) -> str:
            kind = troubled[names[number]]
            if kind == "refuse":
                return f"http://127.2.{number // 250}.{number % 250 + 1}:{port}/"
            return receiver.url(HEALTHY + SILENT + number, kind)

        fill.set_accounts(names, trouble_url)
        messages = fill.Messages(broker.client())
        next_number = {"healthy": 0, "other": TROUBLE_FROM}

        def measure(others: list[str], seconds: float = seconds) -> dict[str, float]:
            began = next_number["other"]

            def beside(since_s: float) -> None:
                due = int(since_s * EACH_PER_S * len(others))
                now = next_number["other"] - began
                if due > now:
                    numbers = range(next_number["other"], began + due)
                    messages.push(numbers, lambda number: others[number % len(others)])
                    next_number["other"] = began + due

            first = next_number["healthy"]
            sent = load.steady(healthy, first, HEALTHY * EACH_PER_S, seconds, beside)
            next_number["healthy"] = first + len(sent.at_s)
            until(lambda: _all_came(receiver, sent), 60, "the healthy accounts' postbacks")
            return load.shown(sent.latencies(receiver), sent)

        with Ours(broker, env, bench.folder) as system:
            measure([], 2.5)  # every lane has had an answer of 200: a new one is a suspect
            found["alone"] = measure([])
            for name in paused:
                pause_account(name)
            pauses = range(PAUSED * PAUSED_EACH)
            fill.accept(broker.client(), pauses, lambda number: (paused[number % PAUSED], receiver.url(0)))
            measure([], 1)  # a claim takes the lanes of the paused accounts out of their turns, once
            found["paused"] = measure([])
            assert sum(pause.waiting for pause in paused_accounts().values()) == len(pauses)
            found["trouble"] = measure(names)
            time.sleep(0 if bench.quick else 10)  # what hangs has ended
            found["silent"] = measure(silent)
            system.abandon()
    return found


def _all_came(receiver: Receiver, sent: load.Sent) -> bool:
    time.sleep(0.1)
    arrivals = receiver.arrivals()
    return all(arrivals[number][0] for number in sent.at_s)


def run(bench: Bench) -> list[Row]:
    """Latency, then isolation."""
    return latency(bench) + isolation(bench)
