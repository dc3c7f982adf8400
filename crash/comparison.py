"""Comparison of the three lists: ids accepted, ids received, ids in the ledger. No I/O in here."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from postbacks.ledger.states import DEAD, DELIVERED, FINAL_STATES, SKIPPED

#: Word of the receiver's file for a POST that it took.
OK, CUT_OFF = "200", "cut"
#: Problems of a POST that should not have come, or not so; no spaces.
WRONG_HOST, WRONG_KEY = "to-another-host", "with-another-hosts-key"
UNSIGNED, WRONG_SIGNATURE = "unsigned", "signed-with-another-secret"
#: Seconds before a broker's death in which ``everysec`` may lose what was accepted: Redis calls fsync once
#: a second, and lets it be late by one more while the disk is busy.
UNSYNCED_S: Final = 2.0
#: Seconds between a POST and a broker's death within which the POST's claim or note may have been unwritten.
FORGOTTEN_S: Final = 5.0
#: Ids that are shown of each violation.
SHOWN: Final = 20


class Post(NamedTuple):
    """POST as the receiver wrote it down.

    Attributes:
        status: a number, or ``cut``.
        account: whose it is.
        generation: of the account, that it was made with (``customers.py``); -1 where that cannot be told.
        problem: what is wrong with it.
    """

    id: str
    attempt: int
    at_s: float
    status: str
    account: str = ""
    generation: int = -1
    problem: str = ""


class Entry(NamedTuple):
    """Record of the ledger, as far as it is compared.

    Attributes:
        outcomes: of each attempt, by its number.
        reason: why it is dead or skipped.
        begun: when each attempt began, by its number.
        own: of whom its URL is, as the record says it.
    """

    state: str
    outcomes: Mapping[int, str]
    reason: str = ""
    account: str = ""
    ended_s: float = 0.0
    begun: Mapping[int, float] = {}
    own: str = ""


@dataclass(frozen=True)
class Held:
    """Content of the broker after draining.

    Attributes:
        entries: the ledger's records by id.
        places: every id and all places that it stands in; ``queue`` and ``intake`` are not yet accepted.
        leaks: counters that are not what is counted, and how far they are off.
    """

    entries: Mapping[str, Entry]
    places: Mapping[str, Sequence[str]]
    leaks: Mapping[str, int | str]


@dataclass(frozen=True)
class Comparison:
    """Outcome of a run: what came of the accepted postbacks.

    ``lost`` are accepted, never answered 200, not dead or skipped and not on their way; ``unsynced`` those of them
    that were accepted within ``UNSYNCED_S`` before the broker was killed with ``everysec``. ``unexplained`` ended
    without a delivery for a reason that what was done to their account does not explain; ``astray`` are ids of POSTs
    that should not have been made so, by what is wrong with them.
    """

    accepted: int
    delivered: int
    dead: int
    skipped: int
    reasons: Mapping[str, int]
    unexplained: list[str]
    lost: list[str]
    unsynced: list[str]
    stuck: list[str]
    unknown_to_ledger: list[str]
    poison: list[str]
    twice: Mapping[str, list[str]]
    misplaced: Mapping[str, list[str]]
    arrived_unaccepted: int
    leaks: Mapping[str, int | str]
    astray: Mapping[str, list[str]] = field(default_factory=dict)

    def violations(self, *, may_lose: bool) -> list[str]:
        """Say in sentences what breaks the promise; ``may_lose``: the broker had not written everything."""
        broken = [
            (self.lost, "lost"),
            (self.stuck, "stuck: neither delivered nor dead"),
            (self.unexplained, "ended without a delivery, and nothing that was done explains it"),
            *((ids, f"POSTs {problem}") for problem, ids in self.astray.items()),
            (self.poison, "set aside as poison, though every kill came from outside"),
            (self.misplaced, "in no place or in two"),
            (self.twice.get(NO_REASON, []), "sent twice without a word in the ledger"),
        ]
        if not may_lose:
            broken += [
                (self.unsynced, "lost"),
                (self.unknown_to_ledger, "delivered and unknown to the ledger"),
            ]
        sentences = [f"{len(ids)} {words}: {', '.join(list(ids)[:SHOWN])}" for ids, words in broken if ids]
        if self.leaks:
            sentences.append(f"counters do not add up: {json.dumps(dict(self.leaks))}")
        return sentences


# Why a postback was sent again though the receiver had taken it. Never within an attempt.
UNKNOWN: Final = "no note (killed before it, or lease lost)"
NO_ANSWER: Final = "answer lost (cut off, or too late)"
FORGOTTEN: Final = "note lost with the unwritten tail"
NO_REASON: Final = "no reason in the ledger"


def _is_dead(entry: Entry) -> bool:
    return entry.state == DEAD


def compare(
    accepted: Mapping[str, float],
    posts: Sequence[Post],
    held: Held,
    *,
    unsynced_deaths: Sequence[float] = (),
    explains: Callable[[Entry], bool] = _is_dead,
    astray: Mapping[str, list[str]] | None = None,
) -> Comparison:
    """Compare the three lists.

    Args:
        accepted: id -> when its call had returned.
        posts: what the receiver wrote down, in order.
        held: what the broker holds.
        unsynced_deaths: when the broker was killed with unwritten data; empty with ``always``.
        explains: whether what was done explains that a postback is dead or skipped.
        astray: ids of POSTs that should not have been made so.
    """
    of_id: defaultdict[str, list[Post]] = defaultdict(list)
    for post in posts:
        of_id[post.id].append(post)
    arrived = {
        postback_id for postback_id, received in of_id.items() if any(post.status == OK for post in received)
    }

    on_the_way, gone = [], []
    ended: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    unexplained: list[str] = []
    for postback_id in accepted:
        entry = held.entries.get(postback_id)
        # Without a record it is on its way while it stands in the queue or the intake.
        if postback_id in held.places if entry is None else entry.state not in FINAL_STATES:
            on_the_way.append(postback_id)
        elif postback_id in arrived:
            continue
        elif entry is not None and entry.state in {DEAD, SKIPPED}:
            ended[entry.state] += 1
            reasons[entry.reason] += 1
            if not explains(entry):
                unexplained.append(postback_id)
        else:
            gone.append(postback_id)
    unsynced = [
        postback_id
        for postback_id in gone
        if postback_id not in held.entries
        and any(death_s - UNSYNCED_S <= accepted[postback_id] <= death_s + 0.1 for death_s in unsynced_deaths)
    ]
    return Comparison(
        accepted=len(accepted),
        delivered=len(arrived & accepted.keys()),
        dead=ended[DEAD],
        skipped=ended[SKIPPED],
        reasons=dict(reasons),
        unexplained=unexplained,
        astray=astray or {},
        lost=sorted(set(gone) - set(unsynced)),
        unsynced=unsynced,
        stuck=on_the_way,
        poison=[
            postback_id for postback_id, entry in held.entries.items() if entry.reason.startswith("poison")
        ],
        unknown_to_ledger=sorted((arrived & accepted.keys()) - held.entries.keys()),
        twice=_sent_twice(of_id, held, unsynced_deaths),
        misplaced=_misplaced(held),
        arrived_unaccepted=len((of_id.keys() | held.entries.keys()) - accepted.keys()),
        leaks=held.leaks,
    )


def _sent_twice(of_id: Mapping[str, list[Post]], held: Held, deaths: Sequence[float]) -> dict[str, list[str]]:
    """Return ids of which a POST came after one that the receiver had taken, by the reason that the ledger gives."""
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for postback_id, posts in of_id.items():
        entry = held.entries.get(postback_id)
        taken = [post for post in posts[:-1] if post.status in {OK, CUT_OFF}]
        if taken:
            for reason in {_reason(post, posts, entry, deaths) for post in taken}:
                reasons[reason].append(postback_id)
    return dict(reasons)


def _reason(post: Post, posts: Sequence[Post], entry: Entry | None, deaths: Sequence[float]) -> str:
    """Say why another POST came after this one, which the receiver had taken."""
    after = posts[posts.index(post) + 1 :]
    if entry is not None and all(
        other.attempt < post.attempt and entry.outcomes.get(other.attempt) == "unknown" for other in after
    ):
        return UNKNOWN  # a worker that was frozen for longer than its lease made an earlier attempt's POST after all
    same = [other for other in posts if other.attempt == post.attempt]
    sent_again_within = post is not same[-1]
    outcome = entry.outcomes.get(post.attempt) if entry is not None else None
    if sent_again_within or outcome is None or outcome == DELIVERED:
        forgotten = any(abs(death_s - post.at_s) <= FORGOTTEN_S for death_s in deaths)
        return FORGOTTEN if forgotten else NO_REASON
    return UNKNOWN if outcome == "unknown" else NO_ANSWER


def _misplaced(held: Held) -> dict[str, list[str]]:
    """Return ids in no place, in two, or not where their record says; with the places."""
    wrong = {}
    for postback_id in held.places.keys() | held.entries.keys():
        places = list(held.places.get(postback_id, ()))
        entry = held.entries.get(postback_id)
        if entry is None:
            # The same message may stand in the queue twice: it is one postback when it is accepted.
            right = bool(places) and set(places) <= {"queue", "intake"}
        else:
            inside = [place for place in places if place not in {"queue", "intake"}]
            right = inside == [_place_of(entry.state)]
        if not right:
            wrong[postback_id] = [entry.state if entry else "no record", *places]
    return wrong


def _place_of(state: str) -> str:
    return "done" if state in {DELIVERED, SKIPPED, "cancelled"} else state
