"""What is told of many postbacks at once, in Celery's words, and which of it must be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from postbacks import keys
from postbacks.ledger.record import iso
from postbacks.taskevents.facts import Fields, args_of, error_of, event
from postbacks.taskevents.share import Levels, is_shown

if TYPE_CHECKING:
    import redis

    from postbacks.ledger.record import Attempt

#: Fields of a postback in the arguments of ``accept.lua``.
_ID, _ACCOUNT, _ORIGIN, _CODE, _PLACE, _REASON, _DUE = 0, 1, 3, 4, 8, 9, 11


class Postback(Protocol):
    """What a claimed or held postback has in common."""

    @property
    def id(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def failures(self) -> int: ...


#: What Celery says of a revoked task beside.
REVOKED: Final[Fields] = {"terminated": False, "signum": None, "expired": False}

#: (event, chosen by the share, or told whatever the share is)
Told = tuple[Fields, bool]


def received(at_s: float, level: int, fields: Sequence[Any], results: Sequence[int]) -> list[Told]:
    """Postbacks that were accepted: the arguments of ``accept.lua`` and its results."""
    width = len(fields) // len(results)
    told: list[Told] = []
    for number, result in enumerate(results):
        if not result:
            continue  # its id is known already
        row = fields[number * width : (number + 1) * width]
        postback_id, account, place = str(row[_ID]), str(row[_ACCOUNT]), row[_PLACE]
        broken = place == "dead"
        # what a broken message says of its code may be anything
        args = args_of(account, *(("", "") if broken else (str(row[_ORIGIN]), str(row[_CODE]))))
        shown = is_shown(postback_id, level) or broken or result < 0
        eta = iso(int(row[_DUE])) if row[_DUE] else None
        told.append((event("received", at_s, postback_id, args, 0, eta=eta), shown))
        error = ""
        if result < 0:
            error = "PostbackDead('backlog_full: too many of this account wait')"
        elif broken:
            error = "PostbackDead('the message is no postback: see its record')"
        elif place == "skipped":
            error = f"PostbackSkipped({str(row[_REASON])!r})"
        if error:
            told.append((event("failed", at_s, postback_id, args, 0, exception=error, traceback=""), shown))
    return told


def _args(postback: Postback) -> str:
    return args_of(postback.account, postback.origin, postback.code)


def _shown(postback: Any, levels: Levels) -> bool:
    created_ms = getattr(postback, "created_ms", None)  # a held one does not say
    return created_ms is not None and is_shown(postback.id, levels.at(created_ms))


def started(at_s: float, claimed: Sequence[Any], accounts: Any, levels: Levels) -> list[Told]:
    """Postbacks whose POST has begun: those of these accounts."""
    return [
        (event("started", at_s, one.id, _args(one), one.failures, eta=None), _shown(one, levels))
        for one in claimed
        if one.account in accounts
    ]


def noted(
    at_s: float,
    notes: Sequence[tuple[Any, Attempt, Sequence[Any]]],
    results: Sequence[Sequence[Any]],
    levels: Levels,
    words: Mapping[str, str],
) -> list[Told]:
    """Attempts that were noted: their notes, the states they led to, and what each outcome means."""
    told: list[Told] = []
    for (one, attempt, _), (state, next_ms) in zip(notes, results, strict=True):
        shown, args = _shown(one, levels), _args(one)
        runtime_s = attempt.elapsed_ms / 1000
        if state == b"delivered":
            result = f"delivered by attempt {attempt.number}"
            done = event("succeeded", at_s, one.id, args, one.failures, result=result, runtime=runtime_s)
        elif state in {b"parked", b"dead"}:
            parked = state == b"parked"
            error = error_of(
                "PostbackFailed" if parked else "PostbackDead",
                attempt.outcome, attempt.status, attempt.number, words,
            )  # fmt: skip
            done = event(
                "retried" if parked else "failed", at_s, one.id, args, one.failures + parked,
                exception=error, traceback="", runtime=runtime_s, eta=iso(int(next_ms) or None),
            )  # fmt: skip
        elif state == b"cancelled":
            done = event("revoked", at_s, one.id, args, one.failures, **REVOKED)
        else:
            continue  # the claim was lost: whoever has it tells
        told.append((done, shown))
    return told


def gone(at_s: float, held: Sequence[Postback], broker: redis.Redis) -> list[Told]:
    """Postbacks that could not be begun, as far as their records say that they were cancelled."""
    pipe = broker.pipeline(transaction=False)
    for one in held:
        pipe.hget(keys.record(one.id), "state")
    states = pipe.execute()
    return [
        (event("revoked", at_s, one.id, _args(one), one.failures, **REVOKED), False)
        for one, state in zip(held, states, strict=True)
        if state == b"cancelled"
    ]


def is_forced(one: Fields) -> bool:
    """Failures go first: what failed is shown whatever the share, and all that follows on it."""
    return one["retries"] > 0 or one["type"] in {"task-retried", "task-failed", "task-revoked"}
