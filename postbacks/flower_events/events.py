"""Task events of postbacks, as Celery's ``celery.events.event.Event`` makes those of tasks.

An event says of a postback its account and code alone. Nothing of its tags, of its URL or of the answer's body may
stand in one: Flower shows it to whoever may look, and keeps it where the ledger's retention does not reach.

Who publishes what: a postback of the share is published by each process that it meets. Any other is published by the
process that makes its POST, from the begin of the POST on, or by the process that ends it without a POST. So no
process needs to know what another one has left out, and what has begun in Flower also ends there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from postbacks import keys
from postbacks.flower_events import wire
from postbacks.ledger.record import iso
from postbacks.ledger.states import CANCELLED, DEAD, DELIVERED, ID_TAKEN, PARKED, SKIPPED, WAITING
from postbacks.ledger.states import REVOKED as REVOKED_BEFORE

if TYPE_CHECKING:
    from postbacks.flower_events.sampling import Sampler
    from postbacks.ledger.record import Attempt

#: Name of the Celery task that Flower shows for a postback.
TASK: Final = "postbacks.send_postback"

TaskEvent = dict[str, Any]

#: Fields of Celery's ``task-revoked`` beside those of all events.
REVOKED: Final[TaskEvent] = {"terminated": False, "signum": None, "expired": False}


class Postback(Protocol):
    """Attributes that a claimed and a held postback have in common."""

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


# -- one event ------------------------------------------------------------------------------------


def args_of(account: str, origin: str, code: str) -> str:
    """Write the arguments as Flower shows them: account and code, nothing personal."""
    parts = [repr(account) if account else "", f"{origin} {code}".strip()]
    return f"({', '.join(part for part in parts if part)})"


def args_in(args: Any) -> str:
    """Write the arguments that a client has sent as Flower shows them; ``()`` where they are no postback's."""
    try:
        account, event = args
        if isinstance(account, str) and isinstance(event, Mapping):
            return args_of(account[:64], str(event["ORIGIN"])[:16], str(event["CODE"])[:8])
    except (TypeError, ValueError, KeyError):
        pass
    return "()"


def task_event(
    kind: str, at_s: float, postback_id: str, args: str, retries: int = 0, **more: Any
) -> TaskEvent:
    """Make an event, without the fields that a whole batch shares.

    It has no ``clock``: the receiver then gives it its own, in the order of arrival, which for the events
    of one postback is the order in which they happened.
    """
    return {
        "type": f"task-{kind}",
        "timestamp": at_s,
        "uuid": postback_id,
        "name": TASK,
        "args": args,
        "kwargs": "{}",
        "retries": retries,
        **more,
    }


# -- what the tick has taken in -------------------------------------------------------------------


def accepted(
    sampler: Sampler, at_s: float, results: Sequence[int], rows: Sequence[Any]
) -> Iterator[TaskEvent]:
    """Make the events of postbacks that a tick has taken in, from the rows of ``accept.lua`` and its results."""
    for row, result in zip(rows, results, strict=True):
        if not result:
            continue  # its id is known already
        postback_id, state = row.id, row.state
        is_dead = state == DEAD or result < 0
        if not sampler.is_in_share(postback_id):
            if not (is_dead or state == SKIPPED or result == REVOKED_BEFORE):
                continue  # the loop that makes its POST publishes it
            if not sampler.admits(1, are_failures=is_dead):
                sampler.left_out += 2
                continue
        is_no_postback = state == DEAD and not row.group  # then its code may be any text
        origin, code = ("", "") if is_no_postback else (str(row.origin), str(row.code))
        args = args_of(row.account, origin, code)
        eta = iso(int(row.due_ms)) if row.due_ms else None
        yield task_event("received", at_s, postback_id, args, eta=eta)
        if result == REVOKED_BEFORE:
            yield task_event("revoked", at_s, postback_id, args, **REVOKED)
        elif error := _refusal(result, state, str(row.reason), is_no_postback=is_no_postback):
            yield task_event("failed", at_s, postback_id, args, exception=error, traceback="")


def _refusal(result: int, state: Any, reason: str, *, is_no_postback: bool) -> str:
    """Write why a postback ended at the tick, as an exception's repr; empty where it did not end."""
    if result == ID_TAKEN:
        return "PostbackDead('id_taken: another postback has its id')"
    if result < 0:
        return "PostbackDead('backlog_full: too many of this account wait')"  # a stub as well
    if is_no_postback:
        return "PostbackDead('the message is no postback: see its record')"
    if state == DEAD:
        return f"PostbackDead({reason!r})"
    return f"PostbackSkipped({reason!r})" if state == SKIPPED else ""


# -- what a delivering loop has done --------------------------------------------------------------


def started(sampler: Sampler, at_s: float, claimed: Sequence[Any]) -> Iterator[TaskEvent]:
    """Make the events of postbacks whose POST has begun."""
    first_posts = sum(
        1 for postback in claimed if not (postback.failures or sampler.is_in_share(postback.id))
    )
    admits_first_posts = sampler.admits(first_posts)
    admits_resends = sampler.admits(0, are_failures=True)
    for postback in claimed:
        started_event = task_event("started", at_s, postback.id, _args(postback), postback.failures, eta=None)
        if sampler.is_in_share(postback.id):
            yield started_event
        elif not (admits_resends if postback.failures else admits_first_posts):
            sampler.left_out += 1 if postback.failures else 2
        else:
            sampler.remember(postback.id)
            if not postback.failures:
                yield _received(at_s, postback)
                # Celery's state of a task takes the field over. As the time of an event it would read as a clock
                # that is wrong, and Flower would warn of that.
                started_event["received"] = postback.created_ms / 1000
            yield started_event


def committed(
    sampler: Sampler,
    at_s: float,
    results: Sequence[tuple[Postback, Attempt, Any]],
    rows: Sequence[Any],
    meanings: Mapping[str, str],
) -> Iterator[TaskEvent]:
    """Make the events of attempts that are in the ledger.

    Args:
        sampler: chooses which are published.
        at_s: when, in seconds since the epoch.
        results: postback and attempt of each, and what ``commit.lua`` was given.
        rows: what became of each, as a ``CommittedRow``.
        meanings: what each outcome means, in words.
    """
    for (postback, attempt, _), row in zip(results, rows, strict=True):
        state = row.state.decode()
        is_in_share = sampler.is_in_share(postback.id)
        has_begun = sampler.forget(postback.id) or is_in_share
        if state in {"", WAITING}:
            continue  # the claim was lost: whoever has it publishes its end
        is_failure = state != DELIVERED and not is_in_share
        if not ((is_failure and sampler.admits(1, are_failures=True)) or has_begun):
            sampler.left_out += 1
            continue
        if not (has_begun or postback.failures):
            yield _received(at_s, postback)
        yield _end(at_s, postback, attempt, state, iso(int(row.next_ms) or None), meanings)


def _end(
    at_s: float,
    postback: Postback,
    attempt: Attempt,
    state: str,
    eta: str | None,
    meanings: Mapping[str, str],
) -> TaskEvent:
    """Make the event of an attempt's end."""
    args, retries, runtime_s = _args(postback), postback.failures, attempt.elapsed_ms / 1000
    if state == DELIVERED:
        result = f"delivered by attempt {attempt.number}"
        return task_event("succeeded", at_s, postback.id, args, retries, result=result, runtime=runtime_s)
    if state == CANCELLED:
        return task_event("revoked", at_s, postback.id, args, retries, **REVOKED)
    is_parked = state == PARKED
    # Not the ledger's detail, which may name the host.
    what = (
        f"{attempt.outcome}, {meanings.get(attempt.outcome, '')}"
        if attempt.status is None
        else f"status {attempt.status}"
    )
    error = f'{"PostbackFailed" if is_parked else "PostbackDead"}("attempt {attempt.number}: {what}")'
    return task_event(
        "retried" if is_parked else "failed", at_s, postback.id, args, retries + is_parked,
        exception=error, traceback="", runtime=runtime_s, eta=eta,
    )  # fmt: skip


def ended_unsent(sampler: Sampler, at_s: float, rows: Sequence[Any]) -> Iterator[TaskEvent]:
    """Make the events of postbacks that ended without a POST, from an ``EndedRow`` of each."""
    for row in rows:
        postback_id, account, origin, code, state, reason = (field.decode() for field in row)
        is_skipped = state == SKIPPED
        if not (sampler.is_in_share(postback_id) or sampler.admits(1, are_failures=not is_skipped)):
            sampler.left_out += 1
            continue
        error = f"{'PostbackSkipped' if is_skipped else 'PostbackDead'}({reason!r})"
        args = args_of(account, origin, code)
        yield task_event("failed", at_s, postback_id, args, exception=error, traceback="")


def cancelled_while_held(sampler: Sampler, at_s: float, held: Sequence[Postback]) -> Iterator[TaskEvent]:
    """Make the events of held postbacks that were cancelled, as their records say; the others moved elsewhere."""
    pipe = wire.broker().pipeline(transaction=False)
    for postback in held:
        pipe.hget(keys.record(postback.id), "state")
    for postback, state in zip(held, pipe.execute(), strict=True):
        if state != CANCELLED.encode():
            continue
        is_in_share = sampler.is_in_share(postback.id)
        if not (is_in_share or sampler.admits(1, are_failures=True)):
            sampler.left_out += 1
            continue
        if not (is_in_share or postback.failures):
            yield _received(at_s, postback)
        yield task_event("revoked", at_s, postback.id, _args(postback), postback.failures, **REVOKED)


def _args(postback: Postback) -> str:
    return args_of(postback.account, postback.origin, postback.code)


def _received(at_s: float, postback: Postback) -> TaskEvent:
    """Make the first event of a postback that no tick has published."""
    return task_event("received", at_s, postback.id, _args(postback), eta=None)
