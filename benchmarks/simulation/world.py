"""Who the postbacks are for, how many come, and what goes wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final

from benchmarks.simulation.rules import Account
from postbacks.settings import Settings

#: Messages a day, and the postbacks that each has: N201 when it is submitted, N202 or E202 as its receipt
#: (docs/catalogue.md).
MT_A_DAY: Final = 50_000_000
POSTBACKS_AN_MT: Final = 2
#: Answers and other general and MO postbacks, as a share of all.
MO_SHARE: Final = 0.02
ACCOUNTS: Final = 2_000
#: An account keeps up that gets no more than this part of what its lane's transfers carry: what a second brings
#: then leaves within the next half.
KEEPS_UP: Final = 0.4
#: Seconds of a customer's server for one POST: the median of all customers, and the spread of their logarithms (68%
#: of them lie within a factor of 1.6). Assumed, not measured: a TLS round trip and a small script.
ANSWER_S, ANSWER_SPREAD = 0.08, 0.5
#: Of the POSTs to servers that are well: a failure now and then, as real ones have.
FAIL_SHARE: Final = 0.0005
#: What a day's hours get beside its mean: people write from morning to evening, most about noon and 18:00.
HOURS: Final = (
    0.30, 0.20, 0.15, 0.12, 0.12, 0.20, 0.45, 0.85, 1.25, 1.55, 1.80, 2.00,
    2.15, 1.75, 1.60, 1.50, 1.55, 1.70, 1.80, 1.50, 1.20, 0.90, 0.65, 0.45,
)  # fmt: skip
DAY_S: Final = 86_400

#: Ways of a server to be down: it takes the connection and says nothing; it takes none and refuses none; it refuses;
#: it answers 500.
TROUBLES: Final = ("hang", "drop", "refuse", "500")


def make_accounts(random_: random.Random, count: int, *, exponent: float = 1.0) -> list[Account]:
    """Accounts by Zipf's law: the n-th has 1/n of what the first has. Their servers are as fast as chance has it."""
    weights = [1 / rank**exponent for rank in range(1, count + 1)]
    total = sum(weights)
    return [
        Account(number, weight / total, ANSWER_S * math.exp(random_.gauss(0, ANSWER_SPREAD)))
        for number, weight in enumerate(weights)
    ]


def choose(random_: random.Random, accounts: Sequence[Account], share: float) -> list[Account]:
    """So many of them, of every size: one of each run of neighbours, so that they have about that share of events."""
    run = max(1, round(1 / share))
    return [
        accounts[first + random_.randrange(min(run, len(accounts) - first))]
        for first in range(0, len(accounts), run)
    ]


def rate_of_day(mean_per_s: float) -> Callable[[float], float]:
    """Postbacks a second at a second of the day, straight between the middles of the hours."""
    scale = mean_per_s / (sum(HOURS) / len(HOURS))

    def rate(at_s: float) -> float:
        hours = (at_s / 3600 - 0.5) % 24
        before = int(hours)
        part = hours - before
        return scale * (HOURS[before] * (1 - part) + HOURS[(before + 1) % 24] * part)

    return rate


def poisson(random_: random.Random, mean: float) -> int:
    """How many come where so many are expected."""
    if mean > 50:
        return max(0, round(random_.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, random_.random()
    while product > limit:
        count += 1
        product *= random_.random()
    return count


class Choice:
    """Accounts by chance, each as often as its share says."""

    def __init__(self, random_: random.Random, accounts: Sequence[Account]) -> None:
        self._random = random_
        self._accounts = list(accounts)
        self._sums = list(accumulate(account.share for account in accounts))

    def of(self, count: int) -> list[Account]:
        """So many, with repetitions."""
        return self._random.choices(self._accounts, cum_weights=self._sums, k=count) if count else []


def own_limit(account: Account, settings: Settings) -> float:
    """POSTs a second that one lane of an account can have: its transfers over what each takes."""
    return settings.lane_max_transfers / (account.answer_s + 0.01)


def keeping_up(accounts: Iterable[Account], settings: Settings, per_s: float) -> list[int]:
    """The numbers of the accounts that are well and whose own limit is above what comes for them."""
    return [
        account.number
        for account in accounts
        if not account.is_down and account.share * per_s < KEEPS_UP * own_limit(account, settings)
    ]
