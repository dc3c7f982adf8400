"""While one account's receipts drain: its own MO events, and the first postback of a new account."""

from __future__ import annotations

import time

from benchmarks import fill
from benchmarks.receiving import Receiver
from benchmarks.scenario import Bench, Row, environment
from benchmarks.systems import Ours
from postbacks import keys, send_postback
from postbacks.devtools.embedded_broker import EmbeddedBroker

LIMIT_S = 1.3


def run(bench: Bench) -> list[Row]:
    """Both in one run: an account drains what is in its lane, while its MO events and new accounts come."""
    backlog = 30_000 if bench.quick else 110_000
    probes, every_s = (4, 0.4) if bench.quick else (10, 0.5)
    with EmbeddedBroker() as broker, Receiver(backlog + 100) as receiver, environment(broker.url) as env:
        client = broker.client()
        fill.set_accounts(["busy"], receiver.url)
        fill.set_accounts([f"new{n}" for n in range(probes)], lambda number: receiver.url(number + 1))
        with Ours(broker, env, bench.folder) as system:
            send_postback.delay("busy", fill.mt(backlog + 99))  # the lane is known to be well
            receiver.wait_for(1, 20)
            fill.accept(client, range(backlog), lambda _: ("busy", receiver.url(0)))
            receiver.wait_for(500, 20)
            sent: dict[str, list[tuple[int, float]]] = {"mo": [], "new": []}
            left = backlog
            for probe in range(probes):
                for kind, account, event in (("mo", "busy", fill.mo), ("new", f"new{probe}", fill.mt)):
                    number = backlog + 2 * probe + (kind == "new")
                    sent[kind].append((number, time.monotonic()))
                    send_postback.delay(account, event(number))
                    time.sleep(every_s / 2)
                    left = min(left, client.llen(keys.lane("busy/mt")))
            wanted = [number for pairs in sent.values() for number, _ in pairs]
            arrivals = receiver.wait_for_numbers(wanted, 20)
            stats = receiver.stats()
            system.abandon()
        assert stats["unsound"] == 0
    late = {
        kind: [arrivals[number][1] - at_s if arrivals[number][0] else 99.0 for number, at_s in ones]
        for kind, ones in sent.items()
    }
    bench.say(
        f"mo {max(late['mo']):.2f} s, new {max(late['new']):.2f} s, {left:,} still waited at the last one"
    )
    asked = 10_000 if bench.quick else 50_000
    return [
        Row(
            f"an MO event of an account whose MT lane holds {asked:,}",
            f"arrives within {LIMIT_S} s",
            f"the latest of {probes} within {max(late['mo']):.2f} s ({left:,} or more waited in the lane)",
            max(late["mo"]) <= LIMIT_S and left >= asked,
            {"late_s": late["mo"], "least_waiting": left},
        ),
        Row(
            f"first postback of a new account while another drains {backlog:,}",
            f"within {LIMIT_S} s",
            f"the latest of {probes} within {max(late['new']):.2f} s",
            max(late["new"]) <= LIMIT_S,
            {"late_s": late["new"]},
        ),
    ]
