"""New accounts while others hang: their first postback, beside one of an account that is known to be well."""

from __future__ import annotations

import time

from benchmarks import fill
from benchmarks.receiving import Receiver
from benchmarks.scenario import Bench, Row, environment, until
from benchmarks.systems import Ours
from postbacks import keys, send_postback
from postbacks.devtools.embedded_broker import EmbeddedBroker

TRANSFERS = 100
#: Hanging accounts: fewer than the transfers, and many more.
HANGING = (80, 300)
#: Postbacks that wait for each of them: as one ends after its 10 s, the next one hangs.
EACH = 20
LIMIT_S = 1.3
#: Where the numbers of the hanging accounts' postbacks begin, out of the others' way.
HANGING_FROM = 1_000
#: Seconds between two events; not a whole second, so that they come at any moment of the tick.
EVERY_S = 0.53


def run(bench: Bench) -> list[Row]:
    """New accounts from the first second, in which nobody has failed yet, until most of those that hang have."""
    rows: list[Row] = []
    for hanging in HANGING[1:] if bench.quick else HANGING:
        late_s = _round(bench, hanging, 12 if bench.quick else 26)
        worst_s, well_s = max(late_s["new"]), max(late_s["well"])
        bench.say(f"{hanging} hang: new {worst_s:.2f} s, well {well_s:.2f} s")
        rows.append(
            Row(
                f"first postback of a new account while {hanging} accounts hang, {TRANSFERS} transfers",
                f"within {LIMIT_S} s",
                f"the latest of {len(late_s['new'])} within {worst_s:.2f} s "
                f"(of an account that is known to be well: {well_s:.2f} s)",
                worst_s <= LIMIT_S,
                {"late_s": late_s["new"], "well_late_s": late_s["well"]},
            )
        )
    return rows


def _round(bench: Bench, hanging: int, seconds: float) -> dict[str, list[float]]:
    with (
        EmbeddedBroker() as broker,
        Receiver(HANGING_FROM + hanging * EACH) as receiver,
        environment(broker.url, POSTBACKS_MAX_TRANSFERS=str(TRANSFERS)) as env,
    ):
        client = broker.client()
        trials = int(seconds / EVERY_S)
        # Some names before and some behind those of the hanging ones: order by name must not matter.
        new = [f"{'az'[number % 2]}-new{number}" for number in range(trials)]
        fill.set_accounts(["well"], receiver.url)
        fill.set_accounts(new, lambda number: receiver.url(1 + number))
        names = [f"hang{number}" for number in range(hanging)]
        fill.set_accounts(names, lambda number: receiver.url(1_000 + number, "hang"))
        messages = fill.Messages(client)
        with Ours(broker, env, bench.folder) as system:
            send_postback.delay("well", fill.mt(0))
            receiver.wait_for(1, 20)

            messages.push(
                range(HANGING_FROM, HANGING_FROM + hanging * EACH),
                lambda number: names[(number - HANGING_FROM) % hanging],
            )
            until(lambda: not client.exists(keys.QUEUE, keys.INTAKE), 30, "the take-in")
            sent: dict[str, list[tuple[int, float]]] = {"new": [], "well": []}
            for trial in range(trials):
                for kind, name in (("well", "well"), ("new", new[trial])):
                    number = 1 + 2 * trial + (kind == "new")
                    sent[kind].append((number, time.monotonic()))
                    send_postback.delay(name, fill.mt(number))
                time.sleep(EVERY_S)
            wanted = [number for pairs in sent.values() for number, _ in pairs]
            arrivals = receiver.wait_for_numbers(wanted, 15)
            assert client.exists(keys.CLAIMERS)
            system.abandon()
    return {
        kind: [arrivals[number][1] - at_s if arrivals[number][0] else 99.0 for number, at_s in pairs]
        for kind, pairs in sent.items()
    }
