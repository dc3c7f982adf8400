"""States of accounts over a run's time, and the POSTs and ends that they explain. No I/O in here."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from crash.comparison import UNSIGNED
from crash.customers import ALWAYS
from postbacks.accounts import UNKNOWN_ACCOUNT
from postbacks.ledger.states import DEAD, SKIPPED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crash.comparison import Entry, Post
    from crash.customers import Change

ORIGIN_OFF, REMOVED, NO_URL = "origin_off", "account_removed", "no_url"
#: Problem of a POST that was begun after its account had changed.
STALE: Final = "made for an account as it was no more"
#: Seconds between a tick's look at the accounts and its acceptance: one that is frozen has them as they were. The
#: intake's lease, and the longest look.
ACCEPTED_LATE_S: Final = 4.0
#: Seconds by which times that were rounded may be off.
ROUNDED_S: Final = 0.01


class _Stay(NamedTuple):
    """Time for which an account was in one state, at its longest: from its change's begin to the next one's end."""

    state: str
    generation: int
    from_s: float
    until_s: float


class AccountStates:
    """States that accounts were in, by the changes that were made to them.

    Args:
        changes: all that were planned.
        notes: number of a change, ``begun`` or ``done``, and when.
    """

    def __init__(self, changes: Sequence[Change | None], notes: Iterable[Sequence[str]]) -> None:
        begun: dict[int, float] = {}
        done: dict[int, float] = {}
        for number, what, at in notes:
            # A change whose process died in it is made again: it may have happened the first time.
            (begun if what == "begun" else done).setdefault(int(number), float(at))
        self._stays: defaultdict[str, list[_Stay]] = defaultdict(list)
        self.made = len(done)
        for number, change in enumerate(changes):
            if change is None or number not in begun:
                continue
            stays = self._stays[change.account]
            last = stays.pop() if stays else _Stay("on", 0, -math.inf, math.inf)
            stays += [
                last._replace(until_s=done.get(number, math.inf)),
                _Stay(change.state, change.generation, begun[number], math.inf),
            ]

    def _was(self, account: str, state: str, from_s: float, until_s: float, generation: int = -1) -> bool:
        """Tell whether an account was in a state at some moment of a span."""
        stays = self._stays.get(account) or [_Stay(ALWAYS.get(account, "on"), 0, -math.inf, math.inf)]
        return any(
            stay.state == state
            and generation in {-1, stay.generation}
            and stay.from_s - ROUNDED_S <= until_s
            and from_s <= stay.until_s + ROUNDED_S
            for stay in stays
        )

    def explains(self, entry: Entry) -> bool:
        """Tell whether the account's changes explain an end without a delivery."""
        if entry.state == SKIPPED:
            return self._was(entry.account, "off", entry.ended_s - ACCEPTED_LATE_S, entry.ended_s)
        if entry.reason in {UNKNOWN_ACCOUNT, REMOVED}:
            return self._was(entry.account, "gone", entry.ended_s - ACCEPTED_LATE_S, entry.ended_s)
        return entry.state == DEAD and entry.reason != NO_URL

    def astray(
        self, posts: Sequence[Post], entries: Mapping[str, Entry], *, exact: bool
    ) -> dict[str, list[str]]:
        """Return ids of POSTs that should not have been made so, by what is wrong with them.

        Args:
            posts: what the hosts wrote down.
            entries: the ledger.
            exact: the broker forgot no change, so that the account must have been so when the POST began.
        """
        wrong: defaultdict[str, list[str]] = defaultdict(list)
        for post in posts:
            entry = entries.get(post.id)
            problem = post.problem
            if problem == UNSIGNED and entry is not None and entry.own == "2":
                continue  # a call's own URL, of an account that was not known when it was accepted
            began_s = entry.begun.get(post.attempt) if entry is not None and exact else None
            if (
                began_s
                and not problem
                and not self._was(post.account, "on", began_s, began_s, post.generation)
            ):
                problem = STALE
            if problem:
                wrong[problem].append(post.id)
        return dict(wrong)
