"""Memory and CPU of records as listpacks, beside hash tables: ``python -m benchmarks.records [--rounds N]``.

Two brokers, with our settings and with the server's own, run the same calls of the scripts in turns: a thousand postbacks
each are accepted, claimed, noted as delivered and, from 20,000 on, dropped. Nothing is sent.
"""

from __future__ import annotations

import argparse
import statistics
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from benchmarks import fill
from benchmarks.machine import exact_cpu_s
from benchmarks.scenario import environment
from postbacks import keys
from postbacks.accounts import make_account
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.ledger.digest import digest_of
from postbacks.ledger.record import SCHEMA
from postbacks.queue.intake import MAX_BATCH
from postbacks.queue.routes import row_of
from postbacks.queue.rows import AcceptRow, AttemptRow, ClaimRow
from postbacks.queue.scripts import Scripts
from postbacks.queue.shares import Shares
from postbacks.urls import endpoint_of

ACCOUNTS: Final = 100
CHUNK: Final = 1_000
KEPT: Final = 20_000
#: Postbacks of a loop in flight, and those that one call notes or claims.
IN_FLIGHT, BATCH = 400, 20
#: What a server has where nobody has set anything.
_DEFAULTS: Final = {"hash-max-listpack-value": "64", "hash-max-listpack-entries": "512"}
_ANY: Final = 1 << 50
_LEASE_MS: Final = 30_000
_TOKEN: Final = "bench@here"


class Contender:
    """A broker and what its postbacks have cost it, in microseconds of CPU each."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.client = broker.client()
        self.client.config_set("appendfsync", "no")  # the disk's moods are no matter here
        self.rounds: list[dict[str, float]] = []
        self._pid = broker.pid
        self._scripts = Scripts(self.client)
        self._number = 0
        names = [f"a{number}" for number in range(ACCOUNTS)]
        self._urls = {name: f"http://127.0.0.1:{20_000 + number}/" for number, name in enumerate(names)}
        accounts = {name: make_account(name, url=url) for name, url in self._urls.items()}
        self._scripts.set_routes(3_600_000, {name: row_of(account) for name, account in accounts.items()})

    def run(self) -> None:
        """Take a thousand postbacks through."""
        spent = dict.fromkeys(("accept", "claim", "commit"), 0.0)

        def measured(part: str, call: Callable[[], Any]) -> Any:
            began_s = exact_cpu_s(self._pid)
            reply = call()
            spent[part] = spent.get(part, 0.0) + 1e6 * (exact_cpu_s(self._pid) - began_s) / CHUNK
            return reply

        self._scripts.take_in("tick", _LEASE_MS, 0)
        for _ in range(CHUNK // MAX_BATCH):
            rows = [self._row() for _ in range(MAX_BATCH)]
            measured("accept", lambda rows=rows: self._scripts.accept("tick", SCHEMA, _ANY, _ANY, 0, rows))
        self._scripts.end_intake("tick")
        in_flight = measured("claim", lambda: self._claim(IN_FLIGHT))
        while in_flight:
            notes = [_note(row) for row in in_flight[:BATCH]]
            measured("commit", lambda notes=notes: self._scripts.commit(_TOKEN, _LEASE_MS, 10, 86_400, notes))
            in_flight = in_flight[BATCH:] + measured("claim", lambda: self._claim(BATCH))
        assert self.client.zscore(keys.DONE, rows[-1].id), "not all were delivered"
        if self._number > KEPT:
            ledger_bytes = int(self.client.get(keys.LEDGER_BYTES))
            may_take = Shares(ledger_bytes * KEPT // (KEPT + CHUNK), _ANY, _ANY, _ANY, 1, _ANY)
            measured("drop", lambda: self._scripts.retain(1e9, 1e9, 1e9, may_take, CHUNK))
        self.rounds.append(spent)

    def bytes_each(self) -> tuple[float, float]:
        """MEMORY USAGE of a delivered record; and with it all that the broker's data take."""
        ids = self.client.zrange(keys.DONE, -CHUNK, -1)
        sizes = [self.client.memory_usage(keys.record(one.decode()), samples=0) for one in ids]
        data = self.client.info("memory")["used_memory_dataset"]
        return statistics.mean(sizes), data / self.client.zcard(keys.DONE)

    def _row(self) -> AcceptRow:
        self._number += 1
        account = f"a{self._number % ACCOUNTS}"
        xml, url = fill.document(self._number), self._urls[account]
        digest = digest_of(account, xml, None)
        return AcceptRow(
            str(uuid.uuid4()), account, "mt", "SMS_MT", "N202", url, endpoint_of(url), xml, "waiting", "", b"", "", digest, "0"
        )  # fmt: skip

    def _claim(self, at_most: int) -> list[ClaimRow]:
        _, begun, *_ = self._scripts.claim(
            _TOKEN, _LEASE_MS, at_most=at_most, suspects_max=at_most, free=20_000, held_max=0, held_per_lane=1, slow_lanes=()
        )  # fmt: skip
        return begun


def _note(row: ClaimRow) -> AttemptRow:
    note = fill.delivered(row.number, int(row.created_ms))
    return AttemptRow(row.id.decode(), row.lane.decode(), "delivered", row.number, note, 0, "ok", "delivered")


def main() -> None:
    """Measure in turns; print bytes, the median of each part, and its median ratio to the round beside it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        brokers = {
            "hash tables": stack.enter_context(EmbeddedBroker(config=_DEFAULTS)),
            "listpacks": stack.enter_context(EmbeddedBroker()),
        }
        stack.enter_context(environment(brokers["listpacks"].url))
        contenders = {name: Contender(broker) for name, broker in brokers.items()}
        for number in range(rounds):
            for contender in list(contenders.values())[:: -1 if number % 2 else 1]:
                contender.run()
        tables = contenders["hash tables"].rounds
        for name, contender in contenders.items():
            record, data = contender.bytes_each()
            print(f"{name}: {record:,.0f} bytes a record, {data:,.0f} with its place in the index")
            for part in (*tables[-1], "whole"):
                ones, beside = ([_of(one, part) for one in all_] for all_ in (contender.rounds, tables))
                ratio = statistics.median(
                    one / other for one, other in zip(ones, beside, strict=True) if other
                )
                middle = statistics.median(one for one in ones if one)
                print(f"  {part:7} {middle:6.1f} µs of the broker's CPU, {ratio:.2f} of hash tables'")


def _of(spent: dict[str, float], part: str) -> float:
    return (
        sum(spent[name] for name in ("accept", "claim", "commit"))
        if part == "whole"
        else spent.get(part, 0.0)
    )


if __name__ == "__main__":
    main()
