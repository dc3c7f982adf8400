"""Cost of one reading of the metrics for the broker: python benchmarks/scrape.py

Fills an embedded broker with accounts that have two lanes each with one resend, and reads the figures once.
"""

from __future__ import annotations

import os
import time

from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker


def fill(client, accounts: int) -> None:
    """Let so many accounts have something that waits."""
    client.flushdb()
    pipe = client.pipeline(transaction=False)
    for number in range(accounts):
        account = f"account-{number}"
        pipe.hset(keys.BACKLOG, account, 2)
        for group in ("mo", "mt"):
            one, lane = f"{account}-{group}", f"{account}/{group}"
            pipe.rpush(keys.lane(lane), one)
            pipe.hset(keys.record(one), mapping={"created_ms": 1, "failures": 1, "sent_ms": 5})
            pipe.hset(keys.LANE_STATE + lane, mapping={"failing": 0, "claimed": 0})
        if number % 1000 == 999:
            pipe.execute()
    pipe.execute()


def main() -> None:
    """Measure with few and with as many accounts as are looked at."""
    with EmbeddedBroker() as broker, broker.client() as client:
        os.environ["POSTBACKS_BROKER_URL"] = broker.url
        from postbacks.monitor import snapshot
        from postbacks.settings import load

        for accounts in (100, 1000, 20_000, 40_000):
            fill(client, accounts)
            snapshot.read(client, load(), within_s=30)  # the script is loaded
            client.config_resetstat()
            began_s = time.process_time()
            found = snapshot.read(client, load(), within_s=30)
            cpu_s = time.process_time() - began_s
            script = client.info("commandstats")["cmdstat_eval_ro"]
            print(
                f"{accounts:>6} accounts: {found.open_waiting} waiting seen, complete {found.complete}, "
                f"{script['calls']} pages, {script['usec'] / 1000:.1f} ms of the broker "
                f"({script['usec_per_call'] / 1000:.1f} ms a page), {cpu_s:.3f} s of our CPU"
            )


if __name__ == "__main__":
    main()
