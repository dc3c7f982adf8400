"""The small storm of a check: what comes when, for whom, and by what two runs of it are compared."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from benchmarks.machine import percentile

ACCOUNTS: Final = 100
#: What every tenth account's server does, in turn.
DOWN_EVERY: Final = 10
KINDS: Final = ("hang", "refuse", "500")
#: Every other account's server answers after so many milliseconds, so that ten transfers a lane are a limit.
DELAY_MS: Final = 40
STEADY_PER_S: Final = 300
STEADY_S: Final = 24.0
STORM_AT_S: Final = 4.0
STORM: Final = 15_000
#: When CPU is read: at the begin, before the storm, and when most of it is over.
MARKS_S: Final = (0.0, STORM_AT_S, STORM_AT_S + 4)
COUNTDOWN_S: Final = 6
RESENDS: Final = 1
TIMEOUT_S: Final = 2
STEP_S: Final = 0.05
#: How long is waited for what is left then. Servers that hang are not done with by then, in neither run.
DRAIN_WITHIN_S: Final = 10.0
WORKERS: Final = 2
ROUNDS: Final = 2
#: Seconds of a server on loopback that answers at once.
AT_ONCE_S: Final = 0.0005
#: When the simulation's events begin; it is at rest by then.
BEGIN_S: Final = 2.0
SIMULATED_STORM_S: Final = BEGIN_S + STORM_AT_S

SETTINGS: Final = {
    "POSTBACKS_RETRY_COUNTDOWN_S": str(COUNTDOWN_S),
    "POSTBACKS_MAX_RESENDS": str(RESENDS),
    "POSTBACKS_ANSWER_TIMEOUT_S": str(TIMEOUT_S),
    "POSTBACKS_CONNECT_TIMEOUT_S": str(TIMEOUT_S),
}


@dataclass(frozen=True, slots=True)
class Script:
    """What comes when: the same for both.

    Attributes:
        steps: seconds since the begin, and the accounts of the events that come then, in order.
    """

    steps: list[tuple[float, list[int]]]

    @property
    def count(self) -> int:
        """Events in all."""
        return sum(len(accounts) for _, accounts in self.steps)


def script(seed: int) -> Script:
    """A steady load, and a storm all at once."""
    chance = random.Random(seed)
    sums = list(accumulate(share(number) for number in range(ACCOUNTS)))
    every = range(ACCOUNTS)
    steps = []
    for step in range(int(STEADY_S / STEP_S)):
        at_s = step * STEP_S
        count = round(STEADY_PER_S * STEP_S)
        if abs(at_s - STORM_AT_S) < STEP_S / 2:
            count += STORM
        steps.append((at_s, chance.choices(every, cum_weights=sums, k=count)))
    return Script(steps)


def share(number: int) -> float:
    """Of an account, by Zipf's law."""
    return 1 / (number + 1) / sum(1 / rank for rank in range(1, ACCOUNTS + 1))


def kind(number: int) -> str:
    """What an account's server does: '' or 'delay' if it is well."""
    if number % DOWN_EVERY == DOWN_EVERY // 2:
        return KINDS[number // DOWN_EVERY % len(KINDS)]
    return "delay" if number % 2 else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What both runs are compared by.

    Attributes:
        late_s: of the postbacks to servers that are well, from the event to the POST.
        storm_drained_s: until the last of them that the storm brought had left.
        longest: postbacks that waited, in Celery's queue and in lanes.
        most_parked: postbacks parked.
        posts_per_s: POSTs a second in the four seconds after the storm.
        resent_s: of failed ones, from the first POST to the second.
        posts: POSTs in all.
    """

    late_s: list[float]
    storm_drained_s: float
    longest: int
    most_parked: int
    posts_per_s: float
    resent_s: list[float]
    posts: int

    def shown(self) -> dict[str, float]:
        """The figures by their names."""
        return {
            "lateness of the healthy, p50 (s)": percentile(self.late_s, 0.5),
            "lateness of the healthy, p99 (s)": percentile(self.late_s, 0.99),
            "the storm's last healthy POST (s after it)": self.storm_drained_s,
            "longest queue (postbacks)": self.longest,
            "POSTs/s in the 4 s after the storm": self.posts_per_s,
            "most parked": self.most_parked,
            "from a failure to its resend, p50 (s)": percentile(self.resent_s, 0.5),
            "from a failure to its resend, p99 (s)": percentile(self.resent_s, 0.99),
            "POSTs in all": self.posts,
        }
