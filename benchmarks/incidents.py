"""Cost of a look for incidents, for the broker and for its process: python benchmarks/incidents.py

Fills an embedded broker with accounts whose lane fails, behind one host or each behind its own, and looks: for the first
time, when all that is found opens, and again.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time

from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker

#: Failing accounts, and endpoints that they share.
CASES = ((500, 1), (5000, 1), (5000, 5000), (20_000, 20_000))


def fill(client, accounts: int, endpoints: int) -> None:
    """Let so many accounts have ten postbacks that wait for a receiver that has failed for ten minutes."""
    client.flushdb()
    since_ms = client.time()[0] * 1000 - 600_000
    pipe = client.pipeline(transaction=False)
    for number in range(accounts):
        account = f"account-{number}"
        lane, first = f"{account}/mt", f"{account}-1"
        endpoint = f"https://host-{number % endpoints}.example:443"
        pipe.zadd(keys.FAILING, {lane: since_ms})
        pipe.hset(keys.LANE_STATE + lane, mapping={"failing": 1, "claimed": 0})
        pipe.hset(keys.ROUTES, account, "\n".join(("1", "on", "v", "", *(f"{endpoint}/", endpoint) * 3, "")))
        pipe.hset(keys.OPEN, lane, 10)
        pipe.hset(keys.BACKLOG, account, 10)
        pipe.rpush(keys.lane(lane), first)
        pipe.hset(
            keys.record(first), mapping={"origin": "SMS_MT", "endpoint": endpoint, "own": 0, "url": endpoint}
        )
        if number % 1000 == 999:
            pipe.execute()
    pipe.execute()


def cpu_of(client) -> float:
    """Return the seconds of CPU that the broker has used."""
    info = client.info("cpu")
    return info["used_cpu_user"] + info["used_cpu_sys"]


def main() -> None:
    """Measure each case, in a database of its own."""
    logging.disable(logging.WARNING)
    with EmbeddedBroker() as broker, broker.client() as client:
        os.environ["POSTBACKS_BROKER_URL"] = broker.url
        from postbacks.history.recorder import Recorder
        from postbacks.history.transactions import reading
        from postbacks.operate.incidents import store
        from postbacks.operate.incidents.finder import Finder
        from postbacks.settings import load

        for accounts, endpoints in CASES:
            with tempfile.TemporaryDirectory() as folder:
                settings = load().model_copy(update={"history_url": f"sqlite:///{folder}/history.db"})
                fill(client, accounts, endpoints)
                recorder = Recorder(client, settings)
                while not recorder.works:
                    recorder.turn()
                finder = Finder(recorder, client, settings)
                print(f"{accounts:,} failing accounts, {endpoints:,} endpoints:")
                for look in ("first look", "next look"):
                    client.config_resetstat()
                    brokers_s, began_s = cpu_of(client), time.process_time()
                    finder.turn()
                    cpu_s, brokers_s = time.process_time() - began_s, cpu_of(client) - brokers_s
                    pages = client.info("commandstats")["cmdstat_eval_ro"]["calls"]
                    print(
                        f"  {look}: {pages} pages, {brokers_s * 1000:.0f} ms of the broker's CPU "
                        f"({brokers_s * 1000 / pages:.2f} ms a page), {cpu_s:.3f} s of ours"
                    )
                with reading(recorder.engine) as connection:
                    found = store.newest(connection, open_only=True, limit=100_000)
                    told = sum(
                        notice.state not in store.UNTOLD
                        for incident in found
                        if incident.kind == "many" or endpoints == 1
                        for notice in store.notices_of(connection, incident.id)
                    )
                print(f"  {len(found):,} incidents, notices that are told of endpoints: {told}")
                recorder.close()


if __name__ == "__main__":
    main()
