"""Dashboard: fifty viewers of live pages beside delivery, and beside a system in which nothing happens.

    python -m benchmarks.web_viewers [--rounds 3]

One stack: a worker, a beat, a recorder, a dashboard. In turns nobody looks and fifty look: first at a steady load, then at a
backlog that is let go. Each viewer asks for its live part every 2 s, with the ETag that it has, as ``static/live.js``
does. CPU is of each process; viewers, generator and receiver are counted to nobody. All share the cores, so time
suffers from the CPU of the web process: what delivery itself pays is the CPU of worker and broker.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx

from benchmarks import fill, load
from benchmarks.machine import commands, exact_cpu_s, resident_bytes
from benchmarks.receiving import Receiver
from benchmarks.scenario import Bench, Row, environment, until
from benchmarks.systems import Ours
from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


ACCOUNTS: Final = 100
VIEWERS: Final = 50
EVERY_S: Final = 2.0
#: Pages that viewers look at, by how many of fifty.
PAGES: Final = {
    "/": 20,
    "/incidents": 5,
    "/postbacks": 5,
    f"/postbacks?q={quote('state:dead')}": 5,
    f"/postbacks?q={quote('account:a1 since:2h')}": 5,
    "/accounts": 5,
    "/system": 5,
}
PER_S: Final = 200
WAIT_S: Final = 240
#: Looks of which the first ones, which are always answered in full, are few.
ENOUGH: Final = 1_000


class Viewers(threading.Thread):
    """Viewers of a dashboard, until ``stop``."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.statuses: Counter[int] = Counter()
        self.took_s: list[float] = []
        self.received_bytes = 0
        self._url = url
        self._stopped = threading.Event()

    def run(self) -> None:
        asyncio.run(self._look())

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    async def _look(self) -> None:
        addresses = [address for address, number in PAGES.items() for _ in range(number)]
        async with httpx.AsyncClient(
            base_url=self._url, headers={"HX-Request": "true"}, timeout=30
        ) as browser:
            await asyncio.gather(
                *(self._view(browser, address, EVERY_S * n / VIEWERS) for n, address in enumerate(addresses))
            )

    async def _view(self, browser: httpx.AsyncClient, address: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        etag = ""
        while not self._stopped.is_set():
            began_s = time.monotonic()
            try:
                answer = await browser.get(address, headers={"If-None-Match": etag} if etag else {})
            except httpx.HTTPError:  # a browser tries again as well: the server ends connections that rest
                self.statuses[0] += 1
            else:
                etag = answer.headers.get("ETag", etag)
                self.statuses[answer.status_code] += 1
                self.received_bytes += answer.num_bytes_downloaded
            self.took_s.append(time.monotonic() - began_s)
            await asyncio.sleep(max(0.0, began_s + EVERY_S - time.monotonic()))


class Beside:
    """Stack with a dashboard, and what it takes with viewers and without."""

    def __init__(self, bench: Bench, rounds: int) -> None:
        self._bench, self._rounds = bench, rounds
        self._seconds, self._count = (4, 2_000) if bench.quick else (8, 8_000)
        self._sent = 0

    def run(self) -> list[Row]:
        """Measure."""
        steady = PER_S * self._seconds
        highest = steady + 2 * self._rounds * (steady + self._count) + 1_000
        with (
            EmbeddedBroker() as broker,
            Receiver(highest) as receiver,
            environment(broker.url) as env,
            socket.create_server(("127.0.0.1", 0)) as listening,
            broker.client() as client,
        ):
            self._names = [f"a{number}" for number in range(ACCOUNTS)]
            fill.set_accounts(self._names, receiver.url)
            messages = fill.Messages(client)
            url = f"sqlite:///{self._bench.folder}/viewers.db"
            with Ours(broker, env, self._bench.folder, history_url=url, web_socket=listening) as system:
                self._system, self._client, self._receiver, self._messages = (
                    system,
                    client,
                    receiver,
                    messages,
                )
                self._url = f"http://127.0.0.1:{listening.getsockname()[1]}"
                self._steady()  # whatever is made once is made
                found: dict[str, list[dict[str, Any]]] = {"alone": [], "viewed": []}
                for number in range(self._rounds):
                    for case in list(found)[:: -1 if number % 2 else 1]:
                        viewers = Viewers(self._url)
                        if case == "viewed":
                            viewers.start()
                            time.sleep(2 * EVERY_S)
                        one = {"steady": self._steady(), "drain": self._drain()}
                        if case == "viewed":
                            viewers.stop()
                            one |= {
                                "statuses": dict(viewers.statuses),
                                "took_s": statistics.median(viewers.took_s),
                            }
                        found[case].append(one)
                        self._bench.say(f"{case}: {one}")
                idle = self._idle()
                self._bench.say(f"idle: {idle}")
        return _rows(found, idle)

    def _spent(self) -> dict[str, float]:
        return self._system.cpu() | {
            "broker": exact_cpu_s(self._system.broker.pid),
            "commands": float(sum(calls for calls, _ in commands(self._client).values())),
        }

    def _steady(self) -> dict[str, float]:
        """Send so many a second; return CPU a postback of each process in µs, and the latency."""
        before, began_s = self._spent(), time.monotonic()
        sent = load.steady(self._names, self._sent, PER_S, self._seconds)
        self._sent += len(sent.at_s)
        self._receiver.wait_for(self._sent, WAIT_S)
        self._recorded()
        return self._result(before, len(sent.at_s), began_s) | load.shown(
            sent.latencies(self._receiver), sent
        )

    def _drain(self) -> dict[str, float]:
        """Let a backlog go; return CPU a postback of each process in µs, and the rate."""
        beat = self._system.beats[0].pid
        os.kill(beat, signal.SIGSTOP)
        try:
            time.sleep(0.5)
            self._messages.push(
                range(self._sent, self._sent + self._count), lambda n: self._names[n % ACCOUNTS]
            )
        finally:
            before, began_s = self._spent(), time.monotonic()
            os.kill(beat, signal.SIGCONT)
        self._sent += self._count
        last_s = self._receiver.wait_for(self._sent, WAIT_S)["last_s"]
        self._recorded()
        return self._result(before, self._count, began_s) | {"per_s": self._count / (last_s - began_s)}

    def _recorded(self) -> None:
        """Wait until all is noted and recorded, so that each turn pays for its own."""
        until(lambda: self._client.zcard(keys.DONE) == self._sent, WAIT_S, "the notes of all answers")
        until(lambda: not self._client.xlen(keys.CHANGES), WAIT_S, "the recorder")

    def _result(self, before: Mapping[str, float], count: int, began_s: float) -> dict[str, float]:
        took_s = time.monotonic() - began_s
        spent = {name: value - before[name] for name, value in self._spent().items()}
        web_s, calls = spent.pop("web"), spent.pop("commands")
        each = {f"{name}_us": 1e6 * value / count for name, value in spent.items()}
        return each | {"web_s": web_s / took_s, "commands": calls / count}

    def _idle(self) -> dict[str, Any]:
        """Let nobody look for a while at a system in which nothing happens, then fifty for a minute and more."""
        quiet = self._while(lambda: time.sleep(4 if self._bench.quick else 20))
        viewers = Viewers(self._url)

        def look() -> None:
            viewers.start()
            time.sleep(8 if self._bench.quick else 70)
            viewers.stop()

        looked = self._while(look)
        return {
            "statuses": dict(viewers.statuses),
            "bytes_each": viewers.received_bytes / sum(viewers.statuses.values()),
            "web_bytes": resident_bytes([self._system.webs[0].pid]),
            **{f"{name}_s": looked[name] - quiet[name] for name in ("web", "broker", "worker", "commands")},
        }

    def _while(self, work: Callable[[], object]) -> dict[str, float]:
        """Return what each process takes a second while something is done."""
        before, began_s = self._spent(), time.monotonic()
        work()
        took_s = time.monotonic() - began_s
        return {name: (value - before[name]) / took_s for name, value in self._spent().items()}


def _rows(found: Mapping[str, Sequence[Mapping[str, Any]]], idle: Mapping[str, Any]) -> list[Row]:
    def of(part: str, name: str, case: str) -> list[float]:
        return [one[part][name] for one in found[case]]

    def ratio(part: str, name: str) -> str:
        pairs = zip(of(part, name, "viewed"), of(part, name, "alone"), strict=True)
        ratios = [viewed / alone for viewed, alone in pairs]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    def middle(part: str, name: str, case: str) -> float:
        return statistics.median(of(part, name, case))

    statuses: Counter[int] = Counter()
    for one in found["viewed"]:
        statuses.update(one["statuses"])
    unchanged = idle["statuses"].get(304, 0) / sum(idle["statuses"].values())
    return [
        Row(
            f"dashboard: delivery's CPU a postback while {VIEWERS} look, beside nobody",
            "stated",
            f"worker {ratio('steady', 'worker_us')} times at {PER_S}/s, {ratio('drain', 'worker_us')} in a drain; broker, the "
            f"pages' commands included, {ratio('steady', 'broker_us')} and {ratio('drain', 'broker_us')}; "
            f"the web process takes {middle('steady', 'web_s', 'viewed'):.2f} of a core, {sum(statuses.values()):,} looks, "
            f"{dict(sorted(statuses.items()))}",
            None,
            {"found": {case: list(ones) for case, ones in found.items()}},
        ),
        Row(
            f"dashboard: time from `.delay()` to the arrival while {VIEWERS} look, {PER_S}/s, beside nobody",
            "stated",
            f"p50 {middle('steady', 'p50_s', 'viewed'):.2f} s beside {middle('steady', 'p50_s', 'alone'):.2f} s, p99 "
            f"{middle('steady', 'p99_s', 'viewed'):.2f} s beside {middle('steady', 'p99_s', 'alone'):.2f} s; a drain's rate "
            f"{ratio('drain', 'per_s')} times, on {len(os.sched_getaffinity(0))} cores that all share",
            None,
        ),
        Row(
            f"dashboard: looks that are answered 304 while nothing happens, {VIEWERS} viewers",
            "at least 90%",
            f"{unchanged:.1%} of {sum(idle['statuses'].values()):,}, {idle['bytes_each']:,.0f} bytes each; the web process takes "
            f"{idle['web_s']:.2f} of a core and {idle['web_bytes'] / 1e6:.0f} MB, the broker {idle['broker_s']:.4f} of a core "
            f"for {idle['commands_s']:.0f} commands/s of theirs",
            unchanged >= 0.9 if sum(idle["statuses"].values()) >= ENOUGH else None,
            dict(idle),
        ),
    ]


def rows(bench: Bench) -> list[Row]:
    """Measure in rounds in which the cases take turns."""
    return Beside(bench, 1 if bench.quick else 3).run()


def main() -> None:
    """Measure and print rows of the table."""
    from benchmarks.report import table

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="postbacks-web-") as folder:
        print(table(Beside(Bench(quick=given.quick, folder=Path(folder)), given.rounds).run()))
    print(f"load average {', '.join(f'{one:.1f}' for one in os.getloadavg())}")


if __name__ == "__main__":
    main()
