"""What is told of many postbacks at once, in Celery's words, and which of it must be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from postbacks import keys
from postbacks.flower_events.facts import Fields, args_of, error_of, event
from postbacks.flower_events.sampling import Levels, is_shown
from postbacks.ledger.record import iso
from postbacks.ledger.states import ID_TAKEN
from postbacks.ledger.states import REVOKED as WAS_REVOKED

if TYPE_CHECKING:
    import redis

    from postbacks.ledger.record import Attempt


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

#: An event, and whether the share has chosen it. One that it has not chosen is a failure or follows on
#: one: failures go first.
EventRow = tuple[Fields, bool]
#: Events, and how many the share has left out.
Batch = tuple[list[EventRow], int]


def received(at_s: float, level: int, rows: Sequence[Any], results: Sequence[int]) -> Batch:
    """Postbacks that were accepted: the rows that ``accept.lua`` took (``queue/rows.py``) and its results."""
    told: list[EventRow] = []
    left_out = 0
    for row, result in zip(rows, results, strict=True):
        if not result:
            continue  # its id is known already
        postback_id, account, place = row.id, row.account, row.state
        broken = (
            place == "dead" and not row.group
        )  # it is no postback: what it says of its code may be anything
        args = args_of(account, *(("", "") if broken else (row.origin, row.code)))
        shown = is_shown(postback_id, level)
        if not (shown or place == "dead" or result < 0):
            left_out += 1
            continue
        eta = iso(row.due_ms) if row.due_ms else None
        told.append((event("received", at_s, postback_id, args, 0, eta=eta), shown))
        if result == WAS_REVOKED:
            told.append((event("revoked", at_s, postback_id, args, 0, **REVOKED), shown))
        error = ""
        if result == ID_TAKEN:
            error = "PostbackDead('id_taken: another postback has its id')"
        elif result < 0:
            error = "PostbackDead('backlog_full: too many of this account wait')"  # a stub as well
        elif broken:
            error = "PostbackDead('the message is no postback: see its record')"
        elif place == "dead" and result != WAS_REVOKED:
            error = f"PostbackDead({str(row.reason)!r})"
        elif place == "skipped" and result != WAS_REVOKED:
            error = f"PostbackSkipped({str(row.reason)!r})"
        if error:
            told.append((event("failed", at_s, postback_id, args, 0, exception=error, traceback=""), shown))
    return told, left_out


def unsent(at_s: float, rows: Sequence[Sequence[str]]) -> Batch:
    """Postbacks that ended unsent: id, account, origin, code, state and reason of each."""
    told: list[EventRow] = []
    for postback_id, account, origin, code, state, reason in rows:
        error = f"{'PostbackSkipped' if state == 'skipped' else 'PostbackDead'}({reason!r})"
        args = args_of(account, origin, code)
        told.append((event("failed", at_s, postback_id, args, 0, exception=error, traceback=""), False))
    return told, 0


def _args(postback: Postback) -> str:
    return args_of(postback.account, postback.origin, postback.code)


def _shown(postback: Any, levels: Levels) -> bool:
    created_ms = getattr(postback, "created_ms", None)  # a held one does not say
    return created_ms is not None and is_shown(postback.id, levels.at(created_ms))


def started(at_s: float, claimed: Sequence[Any], levels: Levels) -> Batch:
    """Postbacks whose POST has begun."""
    told: list[EventRow] = []
    left_out = 0
    for one in claimed:
        shown = _shown(one, levels)
        if shown or one.failures:
            told.append((event("started", at_s, one.id, _args(one), one.failures, eta=None), shown))
        else:
            left_out += 1
    return told, left_out


def noted(
    at_s: float,
    notes: Sequence[tuple[Any, Attempt, Sequence[Any]]],
    results: Sequence[Sequence[Any]],
    levels: Levels,
    words: Mapping[str, str],
) -> Batch:
    """Attempts that were noted: their notes, the states they led to, and what each outcome means."""
    told: list[EventRow] = []
    left_out = 0
    for (one, attempt, _), (state, next_ms) in zip(notes, results, strict=True):
        if state in {b"", b"waiting"}:
            continue  # the claim was lost: whoever has it tells
        shown = _shown(one, levels)
        if not shown and not one.failures and state == b"delivered":
            left_out += 1
            continue
        told.append((_noted(at_s, one, attempt, state, next_ms, words), shown))
    return told, left_out


def _noted(
    at_s: float, one: Postback, attempt: Attempt, state: bytes, next_ms: Any, words: Mapping[str, str]
) -> Fields:
    args, runtime_s = _args(one), attempt.elapsed_ms / 1000
    if state == b"delivered":
        result = f"delivered by attempt {attempt.number}"
        return event("succeeded", at_s, one.id, args, one.failures, result=result, runtime=runtime_s)
    if state == b"cancelled":
        return event("revoked", at_s, one.id, args, one.failures, **REVOKED)
    parked = state == b"parked"
    error = error_of(
        "PostbackFailed" if parked else "PostbackDead",
        attempt.outcome, attempt.status, attempt.number, words,
    )  # fmt: skip
    return event(
        "retried" if parked else "failed", at_s, one.id, args, one.failures + parked,
        exception=error, traceback="", runtime=runtime_s, eta=iso(int(next_ms) or None),
    )  # fmt: skip


def gone(at_s: float, held: Sequence[Postback], broker: redis.Redis) -> Batch:
    """Postbacks that could not be begun, as far as their records say that they were cancelled."""
    pipe = broker.pipeline(transaction=False)
    for one in held:
        pipe.hget(keys.record(one.id), "state")
    states = pipe.execute()
    told = [
        (event("revoked", at_s, one.id, _args(one), one.failures, **REVOKED), False)
        for one, state in zip(held, states, strict=True)
        if state == b"cancelled"
    ]
    return told, 0
