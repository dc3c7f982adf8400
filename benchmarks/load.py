"""A steady load of real ``.delay()`` calls, and how late each arrives."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks import fill
from benchmarks.machine import percentile
from postbacks import send_postback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.receiving import Receiver

THREADS = 16


@dataclass(slots=True)
class Sent:
    """Postbacks that a generator has sent.

    Attributes:
        at_s: number -> time.monotonic() just before its call.
        lag_s: how late each call was begun, to show that the generator kept up.
    """

    at_s: dict[int, float] = field(default_factory=dict)
    lag_s: list[float] = field(default_factory=list)

    def latencies(self, receiver: Receiver) -> list[float]:
        """Seconds from each call to its arrival; AssertionError where one has not come."""
        arrivals = receiver.arrivals()
        missing = sum(not arrivals[number][0] for number in self.at_s)
        assert not missing, f"{missing} of {len(self.at_s)} never came"
        return [arrivals[number][1] - at_s for number, at_s in self.at_s.items()]


def steady(
    names: Sequence[str],
    first: int,
    per_s: float,
    seconds: float,
    beside: Callable[[float], None] = lambda _: None,
) -> Sent:
    """Send so many a second to these accounts in turn, evenly.

    Several threads take turns, as an application's processes would: each call waits until the broker has
    written it to its disk.

    Args:
        names: accounts.
        first: number of the first postback.
        per_s: calls a second.
        seconds: how long.
        beside: called now and then with the seconds since the begin: other load.
    """
    sent = Sent()
    count = int(per_s * seconds)
    began_s = time.monotonic()

    def send(begin: int) -> None:
        for step in range(begin, count, THREADS):
            ahead_s = began_s + step / per_s - time.monotonic()
            if ahead_s > 0:
                time.sleep(ahead_s)
            number = first + step
            now_s = time.monotonic()
            sent.at_s[number] = now_s
            sent.lag_s.append(now_s - began_s - step / per_s)
            send_postback.delay(names[step % len(names)], fill.mt(number))

    with ThreadPoolExecutor(THREADS) as pool:
        runs = [pool.submit(send, begin) for begin in range(THREADS)]
        while not all(run.done() for run in runs):
            beside(time.monotonic() - began_s)
            time.sleep(0.05)
        for run in runs:
            run.result()
    return sent


def shown(latencies: Sequence[float], sent: Sent) -> dict[str, float]:
    """The numbers of a run."""
    return {
        "p50_s": percentile(latencies, 0.5),
        "p99_s": percentile(latencies, 0.99),
        "worst_s": max(latencies),
        "generator_p99_late_s": percentile(sent.lag_s, 0.99),
    }
